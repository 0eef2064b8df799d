"""Parts of a picture that are kept sample by sample, over what the synthesis makes of the rest.

    samples and where they are taken -> VP8L with alpha -> layer of a tile
    layer of a tile -> samples -> over the pixels of the synthesis (`aecodec.paint`)

So text beside a photograph stays as it is, and neither pays for the other. docs/format.md is
normative; `aecodec.repeats` finds what is worth it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aecodec import vp8l
from aecodec.container import AecFile, Box
from aecodec.errors import FormatError, SymbolError

Pixels = npt.NDArray[np.uint8]
Blocks = npt.NDArray[np.bool_]


class Layer(NamedTuple):
    """Samples (h,w,3) of a tile, and where they are taken (h,w)."""

    samples: Pixels
    taken: Blocks

    def lay(self, pixels: Pixels) -> None:
        """Put the samples over the pixels (h,w) or (h,w,3) of the tile."""
        samples = self.samples[self.taken]
        pixels[self.taken] = samples if pixels.ndim == 3 else samples[:, 1]


# The layer of the tile of a number, None where there is none.
Layers = Callable[[int], Layer | None]


def pack(pixels: Pixels, taken: Blocks, slowly: bool = False) -> bytes:
    """The layer that keeps the pixels (h,w) or (h,w,3) where they are taken (h,w); b"" for none."""
    if not taken.any():
        return b""
    samples = np.dstack([vp8l.coloured(pixels), np.full(taken.shape, 255, np.uint8)])
    samples[~taken] = 0
    return struct.pack("<H", vp8l.checksum(samples)) + vp8l.pack(samples, slowly)


def unpack(layer: bytes, height: int, width: int) -> Layer:
    """Back from `pack`.

    Raises what `vp8l.unpack` raises, SymbolError for other samples than were coded.
    """
    samples = vp8l.unpack(layer[2:], height, width)
    if layer[:2] != struct.pack("<H", vp8l.checksum(samples)):
        raise SymbolError("the samples of a layer are not those that were coded")
    return Layer(samples[..., :3], samples[..., 3] > 0)


def layers_of(file: AecFile, damaged: list[Box] | None = None) -> Layers:
    """What gives the layers of a file's tiles; safe to ask from several threads.

    With a list `damaged`, tiles whose layer cannot be decoded are noted there and have none. Else
    asking for one raises what `unpack` raises.
    """
    boxes = list(file.header.boxes)

    def layer_of(number: int) -> Layer | None:
        tile, (left, top, right, bottom) = file.tiles[number], boxes[number]
        if tile is None or not tile.layer:
            return None
        try:
            return unpack(tile.layer, bottom - top, right - left)
        except (FormatError, SymbolError):
            if damaged is None:
                raise
            if boxes[number] not in damaged:
                damaged.append(boxes[number])
            return None

    return layer_of


def no_layers(number: int) -> None:
    """The layers of a picture that has none."""


def open_boxes(taken: Blocks, gap: int) -> list[Box]:
    """Boxes around all that is not taken (h,w): cut apart wherever more than `gap` rows or columns
    between them are taken, the widest such gap first."""
    found: list[Box] = []
    waiting = [(0, 0, taken.shape[1], taken.shape[0])]
    while waiting:
        left, top, right, bottom = waiting.pop()
        part = ~taken[top:bottom, left:right]
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        if not len(rows):
            continue
        row, tall = _widest(rows)
        column, wide = _widest(columns)
        if max(tall, wide) <= gap:
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            found.append((left + box[0], top + box[1], left + box[2], top + box[3]))
        elif tall > wide:
            waiting += [(left, top, right, top + row), (left, top + row, right, bottom)]
        else:
            waiting += [(left, top, left + column, bottom), (left + column, top, right, bottom)]
    return found


def _widest(places: npt.NDArray[np.intp]) -> tuple[int, int]:
    """The end of the widest gap between rising places, and how wide it is, 0 if there is none."""
    gaps = np.diff(places) - 1
    if not len(gaps) or not gaps.any():
        return 0, 0
    at = int(gaps.argmax())
    return int(places[at]) + 1, int(gaps[at])
