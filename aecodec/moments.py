"""Second moments of what the filter's last layer sees in a picture, and of what is missing there.

    symbols of a tile -> what the layer sees, what its pixels lack -> sums of products

The layer is linear, so these are all that `aecodec.tuning` needs to know of a picture. Products of
what is seen with what is seen so many positions on are summed once for all pairs of a kernel's
weights that lie so far apart: beyond the part that is looked at everything counts as zero.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.model import Model
from aecodec.paint import each
from aecodec.tile import LATENT, Coded
from aecodec.window import Window

Float = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

SIDE = 3  # of kernels
TAPS = [(i, j) for i in range(SIDE) for j in range(SIDE)]
# How far two weights of a kernel lie apart, rows and columns; the other way round is the transpose.
LAGS = [(i, j) for i in range(SIDE) for j in range(1 - SIDE, SIDE) if (i, j) >= (0, 0)]
# Positions whose products are summed in single precision: so many of two numbers below 256 stay
# below 2^24, so sums are exact, whatever the order and the number of threads.
RUN = 256
HALF = LATENT // 2  # positions of a latent
STRIP, MARGIN = 8, 1  # rows of latents: of a large picture only every so many strips are looked at


class Sample:
    """Sums over positions of a picture; tiles may be added by several threads.

    zero: the activation that stands for 0. turn (3,3): the rotation of colours that the layer works
    in. pixels: of the whole picture; of large ones about `most` positions are looked at.
    """

    def __init__(
        self, channels: int, zero: int, turn: Matrix, pixels: int, most: int, threads: int = 1
    ) -> None:
        self._zero, self._turn, self._threads = zero, turn, threads
        self.every = -(-pixels // 4 // most)  # of so many strips one is looked at
        self._positions, self._added = pixels / 4, 0
        self._seen: Matrix = np.zeros((len(LAGS), channels, channels))
        self._missing: Matrix = np.zeros((len(TAPS), 12, channels))
        self._lock = threading.Lock()

    def strips(self, rows: slice) -> list[slice]:
        """The parts of a tile's rows of latents that are looked at."""
        if self.every == 1:
            return [rows]
        tops = range(rows.start, rows.stop, STRIP * self.every)
        return [slice(top, min(rows.stop, top + STRIP)) for top in tops]

    def add(self, seen: npt.NDArray[np.uint8], error: Float) -> None:
        """Take in seen (h,w,C), and what the pixels lack there in whole levels, error (h,w,12)."""
        h, w, channels = seen.shape
        row = w + SIDE - 1  # zeros between rows: one position after the other is as good as a plane
        length = -(-h * row // RUN) * RUN
        before, after = row + 1, (SIDE - 1) * (row + 1)
        active = np.zeros((before + length + after, channels), np.float32)
        inside = active[before : before + h * row].reshape(h, row, channels)[:, :w]
        np.subtract(seen, np.float32(self._zero), out=inside, dtype=np.float32)
        lost = np.zeros((length, 12), np.float32)
        lost[: h * row].reshape(h, row, 12)[:, :w] = error

        def runs(array: Float, start: int) -> Float:
            return array[start : start + length].reshape(-1, RUN, array.shape[1])

        def products(task: tuple[Float, int]) -> Matrix:
            left, lag = task
            total: Matrix = (left @ runs(active, before + lag)).sum(0, dtype=np.float64)
            return total

        own, other = (runs(a, i).transpose(0, 2, 1) for a, i in ((active, before), (lost, 0)))
        tasks = [(own, i * row + j) for i, j in LAGS]
        tasks += [(other, (i - 1) * row + j - 1) for i, j in TAPS]
        found = list(each(products, tasks, True, self._threads))
        with self._lock:
            self._seen += np.stack(found[: len(LAGS)])
            self._missing += np.stack(found[len(LAGS) :])
            self._added += h * w

    @property
    def _share(self) -> float:
        """Positions that one which was looked at stands for."""
        return 1.0 if self.every == 1 else self._positions / max(1, self._added)

    @property
    def seen(self) -> Matrix:
        """(9 C, 9 C): products of what each weight of a kernel (C,3,3) sees."""
        sums = dict(zip(LAGS, self._seen * self._share, strict=True))
        sums |= {(-i, -j): one.T for (i, j), one in sums.items()}
        pairs = np.stack([[sums[k - i, n - j] for k, n in TAPS] for i, j in TAPS])
        size = len(TAPS) * self._seen.shape[1]
        moments: Matrix = pairs.transpose(2, 0, 3, 1).reshape(size, size)
        return moments

    @property
    def missing(self) -> Matrix:
        """(9 C, 12): products of that with what is missing, in the colours of the layer."""
        sums = (self._missing * self._share).transpose(2, 0, 1).reshape(-1, 4, 3)
        moments: Matrix = np.einsum("npd,cd->npc", sums, self._turn).reshape(len(sums), 12)
        return moments


def look(model: Model, window: Window, coded: Coded, quality: int, sample: Sample) -> None:
    """Add a tile, as its symbols decode; quality in hundredths."""
    y_hat = Cost(model, quality, grey=False).surrounded(window, coded.y_hat)
    first = window.columns.start * HALF
    last = min(window.columns.stop * HALF, window.width // 2)
    for strip in sample.strips(window.rows):
        # A whole tile is seen as it is decoded, with all that surrounds it.
        start = 0 if sample.every == 1 else max(0, strip.start - MARGIN)
        stop = len(y_hat[0]) if sample.every == 1 else strip.stop + MARGIN
        top = (strip.start - start) * HALF
        bottom = min((strip.stop - start) * HALF, window.height // 2 - start * HALF)
        if bottom <= top or last <= first:
            continue
        seen, parts = model.networks.fitting(np.ascontiguousarray(y_hat[:, start:stop]), quality)
        pixels = window.pixels[start * LATENT : stop * LATENT]
        part = slice(top, bottom), slice(first, last)
        near = slice(2 * top, 2 * bottom), slice(2 * first, 2 * last)
        sample.add(seen[part], _lacking(pixels[near], parts[:, part[0], part[1]]))


def _lacking(pixels: Pixels, parts: Pixels) -> Float:
    """Pixels (2h,2w,3) minus what parts (12,h,w) of a picture show, as (h,w,12)."""
    lacking = np.empty((*parts.shape[1:], 12), np.float32)
    for channel, plane in enumerate(parts):
        position, colour = divmod(channel, 3)
        original = pixels[position // 2 :: 2, position % 2 :: 2, colour]
        np.subtract(original, plane, out=lacking[..., channel], dtype=np.float32)
    return lacking
