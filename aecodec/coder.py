"""Pixels by transform and prior, at one quality or at several: the pipeline of the encoder.

    pixels -> g_a -> u -> h_a -> z -> coded; u -> four steps (prior, round, code) -> tiles

Each tile is coded on its own, but the transforms read a halo of pixels over its edges, so that
the picture has no seams.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aecodec.axes import FROM, best_axes, guessed_axes, matrix, turned_model
from aecodec.container import Axes, Colour, Header, Tile
from aecodec.effort import Level
from aecodec.filling import continued
from aecodec.model import Model
from aecodec.moments import Sample, look
from aecodec.paint import each, painters
from aecodec.search import choose
from aecodec.tile import write_tile
from aecodec.tuning import chunk, sample_of
from aecodec.watch import Report, Watch
from aecodec.window import Box, Window, cut, grow, inner, padded

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Transformed:
    """A picture coded: its head, its tiles, and how the filter is tuned, or None.

    y_hat: of every tile, digests: of that; either may be left out.
    """

    header: Header
    tiles: tuple[Tile, ...]
    filter: bytes | None = None
    y_hat: tuple[Float, ...] = ()
    digests: tuple[bytes, ...] = ()


class TransformCoder:
    """Codes pixels (H,W) or (H,W,3). keep: hold what another encoding, and a decoder, can use.

    turns: whether colours may be turned. digests: whether they are taken.
    """

    def __init__(
        self,
        model: Model,
        pixels: Pixels,
        threads: int,
        *,
        keep: bool = False,
        digests: bool = False,
        turns: bool = True,
    ) -> None:
        self._model, self._pixels, self._threads = model, pixels, threads
        self._keep, self._take_digests, self._turns = keep, digests, turns
        self._latents: dict[tuple[Axes, Box], Float] = {}
        self._guess: Axes | None = None

    def header(self, model_id: bytes, quality: int) -> Header:
        """The head of one tile of the pixels alone; quality in hundredths."""
        height, width = self._pixels.shape[:2]
        colour = Colour.GREY if self._pixels.ndim == 2 else Colour.RGB
        return Header(model_id, colour, False, width, height, quality)

    def encode(
        self, header: Header, level: Level, time_limit: float = 0.0, report: Report | None = None
    ) -> Transformed:
        """The picture at the quality of a head, whose colours are not turned yet.

        time_limit: seconds after which a search ends with what it has, 0 for none. report: called
        with how far it is, 0 to 1, from any thread.
        """
        header = self._turned(header, level)
        sample = self._sample(header, level)
        watch = Watch(header.tile_count, self._workers(header, level), time_limit, report)
        found = self._tiles(header, level, sample, watch)
        change = None if sample is None else chunk(self._model, header.quality, sample)
        tiles, y_hat, digests = zip(*found, strict=True)
        return Transformed(
            header, tiles, change, y_hat if self._keep else (),
            digests if self._take_digests else (),
        )  # fmt: skip

    def _turned(self, header: Header, level: Level) -> Header:
        """The head with the axes of colour that the picture is to be coded on."""
        able = level.turns and self._model.networks.can_turn and header.quality >= FROM
        if not (self._turns and able) or header.colour is Colour.GREY:
            return header
        if level.tries:
            axes = best_axes(self._model, self._pixels, header.quality, level.tries)
        else:
            if self._guess is None:
                self._guess = guessed_axes(self._model, self._pixels)
            axes = self._guess
        return replace(header, axes=axes)

    def _sample(self, header: Header, level: Level) -> Sample | None:
        """Where to add what the filter is tuned by, if it is."""
        able = self._model.networks.can_tune and header.colour is not Colour.GREY
        if not able or header.quality < level.tunes_from:
            return None
        pixels, turn = header.width * header.height, matrix(header.axes)
        threads = 1 if self._workers(header, level) > 1 else self._threads
        return sample_of(self._model, header.quality, turn, pixels, level.looked_at, threads)

    def _workers(self, header: Header, level: Level) -> int:
        """Tiles that are coded at once."""
        return 1 if header.tile_count == 1 or level.gradients else self._threads

    def _tiles(
        self, header: Header, level: Level, sample: Sample | None, watch: Watch
    ) -> list[tuple[Tile, Float | None, bytes]]:
        """The coded tiles, their y_hat if these are to be kept, and digests of them.

        sample: where to add what the filter is tuned by.
        """
        grey, model = header.colour is Colour.GREY, turned_model(self._model, header.axes)
        workers = self._workers(header, level)
        turn = threading.BoundedSemaphore(painters(workers))

        def encode_box(box: Box) -> tuple[Tile, Float | None, bytes]:
            with watch.tile() as clock:
                window = self._window(model, header, box)
                coded = choose(model, window, header.quality, grey, level, clock, turn)
                if sample is not None:
                    with turn:
                        look(model, window, coded, header.quality, sample)
            tile = write_tile(model, coded, header.quality)
            taken = digest(coded.y_hat) if self._take_digests else b""
            return tile, coded.y_hat if self._keep else None, taken

        found = list(each(encode_box, header.boxes, workers > 1, workers))
        if header.tile_count > 1:
            model.networks.close()
        return found

    @functools.cached_property
    def _whole(self) -> Pixels:
        """The pixels up to whole hyper-latents, for a single tile."""
        return continued(self._pixels, *map(padded, self._pixels.shape[:2]))

    def _window(self, model: Model, header: Header, box: Box) -> Window:
        """A tile and its surroundings; the latents are kept if every quality has the same."""
        grown = grow(box, model.halo, header.width, header.height)
        whole = self._whole if header.tile_count == 1 else self._pixels
        pixels = cut(whole, grown)
        u = self._latents.get((header.axes, box))
        if u is None:
            u = model.networks.analysis(pixels, header.quality)
            if self._keep and not model.networks.analysis_follows_quality:
                self._latents[header.axes, box] = u
        height, width = header.height - grown[1], header.width - grown[0]
        rows, columns = inner(box, grown)
        return Window(
            pixels, u, rows, columns, min(height, len(pixels)), min(width, pixels.shape[1])
        )


def digest(data: bytes | Float) -> bytes:
    """A digest of bytes or of the values of an array."""
    raw = data if isinstance(data, bytes) else np.ascontiguousarray(data + np.float32(0)).data
    return hashlib.sha256(raw).digest()  # + 0: both zeros are one value
