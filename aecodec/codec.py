"""The pipeline of the encoder; every stage is in a module of its own. Back: `aecodec.decoding`.

    pixels -> g_a -> u -> h_a -> z -> coded; u -> four steps (prior, round, code)
           -> payload -> container

A picture that repeats itself is coded exactly as well (`aecodec.exact`), and the smaller file wins.
A picture larger than SINGLE_TILE_PIXELS is cut into tiles. Each tile is coded on its own, but
the transforms read a halo of pixels over its edges, so that the picture has no seams.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aecodec import alpha, container, exact
from aecodec.axes import FROM, best_axes, guessed_axes, matrix, turned_model
from aecodec.container import AecFile, Axes, Colour, Header, Tile
from aecodec.decoding import decode_damaged, decode_file, model_of, pixel_decoder
from aecodec.distortion import decibels, squared_error
from aecodec.effort import DRAFT, Level
from aecodec.effort import level as effort_level
from aecodec.errors import AecError, FormatError, LimitError, SymbolError
from aecodec.model import Model, open_model
from aecodec.moments import Sample, look
from aecodec.paint import TILE, each, paint, painted_rows, painters
from aecodec.picture import Picture
from aecodec.search import choose
from aecodec.tile import decode_tile, write_tile
from aecodec.transforms import default_threads
from aecodec.tuning import chunk, sample_of
from aecodec.watch import Report, Watch
from aecodec.weights import id_of
from aecodec.window import Box, Window, cut, grow, inner, padded

__all__ = ["Encoder", "decode_damaged", "decode_file", "encode_picture"]

Float = npt.NDArray[np.float32]
CodedTile = tuple[Tile, Float | None, bytes]  # its y_hat if that is kept, and a digest of it

SINGLE_TILE_PIXELS = 3 * 2**20  # larger pictures are tiled
HOPELESS = 2.0  # times the exact file that a draft takes where a search is left out
KEPT_PIXELS = 2**24  # latents of larger pictures are not kept between encodings


def encode_picture(
    picture: Picture,
    quality: float = 75.0,
    *,
    metadata: str = "all",
    threads: int = 0,
    verify: bool = False,
    effort: int | None = None,
    model: str = "",
    turns: bool = True,
    exactly: bool = True,
) -> bytes:
    """The bytes of an .aec file: `Encoder` for one quality, verified if asked for."""
    encoder = Encoder(
        picture, metadata=metadata, threads=threads, effort=effort, model=model, turns=turns,
        exactly=exactly, keep=verify,
    )  # fmt: skip
    data = encoder.encode(quality)
    if verify:
        encoder.verify(data)
    return data


class Encoder:
    """A picture that is coded at one quality or at several, as the search for a size needs.

    metadata: "all", "icc" or "none". threads: 0 takes the cores of the machine. effort: a level
    of `aecodec.effort`, None for the default. model: name or id, see `aecodec.weights`, "" for the
    default. turns: whether colours may be turned. exactly: whether the picture may be coded exactly
    where that takes no more bytes. time_limit: seconds after which the search of one
    encoding ends with what it has, 0 for none. report: called with how far an encoding is, 0 to
    1, from any thread. keep: hold what another encoding and `decoded` can use, unless the
    picture is very large. Raises AecError for choices that are not there, LimitError, ModelError.

    The bytes do not depend on the number of threads, nor on anything but picture, settings,
    model and release on one kind of processor, unless a limit of time cuts in.
    """

    def __init__(
        self,
        picture: Picture,
        *,
        metadata: str = "all",
        threads: int = 0,
        effort: int | None = None,
        model: str = "",
        turns: bool = True,
        exactly: bool = True,
        time_limit: float = 0.0,
        report: Report | None = None,
        keep: bool = True,
    ) -> None:
        if metadata not in ("all", "icc", "none"):
            raise FormatError(f"metadata must be all, icc or none, not {metadata!r}")
        if not time_limit >= 0:  # also refuses NaN
            raise AecError(f"the time limit must be a number of seconds, not {time_limit:g}")
        self._picture, self._metadata = picture, _kept_metadata(picture, metadata)
        self._threads = threads or default_threads()
        self._level, self._time_limit, self._report = effort_level(effort), time_limit, report
        self._turns, self._exactly, self._verifiable = turns, exactly, keep
        self._keep = keep and picture.width * picture.height <= KEPT_PIXELS
        self._model = open_model(id_of(model), self._threads)
        self._alpha = None if picture.alpha is None else alpha.pack_alpha(picture.alpha)
        self._latents: dict[tuple[Axes, Box], Float] = {}
        self._guess: Axes | None = None
        self._y_hat: list[Float] = []
        self._coded = b""  # the file encoded last
        self._digests: dict[bytes, list[bytes]] = {}  # of each tile's y_hat, by that of the file

    @property
    def slow(self) -> bool:
        """Whether a draft is worth it: see `encode`."""
        return self._level.number > DRAFT.number

    def encode(self, quality: float = 75.0, *, draft: bool = False) -> bytes:
        """The bytes of an .aec file; quality is 0 (small) to 100 (good), in hundredths.

        draft takes little effort, to see about what size and PSNR a quality gives. Raises
        FormatError for a quality out of range.
        """
        if not 0 <= quality <= 100:  # also refuses NaN
            raise FormatError(f"quality {quality:g} is not between 0 and 100")
        level = DRAFT if draft and self.slow else self._level
        if self._surely_exact(quality, level):
            return self._taken(self._exact_bytes)
        data, found = self._transformed(quality, level)
        if self._exact_bytes and len(self._exact_bytes) <= len(data):
            return self._taken(self._exact_bytes)
        return self._taken(data, found)

    def _transformed(self, quality: float, level: Level) -> tuple[bytes, list[CodedTile]]:
        """The file of quantised latents, and its tiles with what else is known of them."""
        header = self._turned(
            _header(self._picture, self._model.weights.id, round(quality * 100)), level
        )
        sample = self._sample(header, level)
        found = self._tiles(header, level, sample)
        tiles, (icc, exif, xmp) = tuple(tile for tile, *_ in found), self._metadata
        change = None if sample is None else chunk(self._model, header.quality, sample)
        file = AecFile(header, tiles, self._alpha, icc, exif, xmp, change)
        return container.write(file), found

    def _taken(self, data: bytes, found: Sequence[CodedTile] = ()) -> bytes:
        """The file that was chosen; what `decoded` and `verify` need of it is kept."""
        self._coded = data
        self._y_hat = [y_hat for _, y_hat, _ in found if y_hat is not None]
        if self._verifiable:
            self._digests[_digest(data)] = [digest for *_, digest in found]
        return data

    def _surely_exact(self, quality: float, level: Level) -> bool:
        """Whether a search can be left out: no search makes a draft so much smaller."""
        if not (self._exact_bytes and level.passes):
            return False
        draft, _ = self._transformed(quality, DRAFT)
        return len(draft) > HOPELESS * len(self._exact_bytes)

    @functools.cached_property
    def _exact_bytes(self) -> bytes:
        """Those of the file that keeps every sample, or none."""
        return b"" if self.exact is None else container.write(self.exact)

    @functools.cached_property
    def exact(self) -> AecFile | None:
        """The file that keeps every sample, if it promises to be small; equal at all qualities."""
        pixels = self._picture.pixels
        if not (self._exactly and exact.promising(pixels) and exact.available()):
            return None
        header = _header(self._picture, self._model.weights.id, 0)
        file, (icc, exif, xmp) = exact.file_of(header, pixels, self._threads), self._metadata
        return replace(file, alpha=self._alpha, icc=icc, exif=exif, xmp=xmp)

    def verify(self, data: bytes) -> float:
        """PSNR in dB of a file of this encoder, which was made with `keep`, as a decoder reads it.

        The decoded picture is compared a row of tiles at a time and never held as a whole.
        Raises AecError when it cannot be decoded, SymbolError when it is not what was coded:
        the latents that the pixels are made of, alpha, and metadata.
        """
        file, picture = container.read(data, container.MAX_SIDE**2), self._picture
        expected = self._digests.get(_digest(data))
        if expected is None:
            raise SymbolError("verification failed: these are not the bytes that were coded")
        squares = self._squares(file, expected)
        plane = None
        if file.alpha is not None:
            plane = alpha.unpack_alpha(file.alpha, picture.height, picture.width)
        if not np.array_equal(plane, picture.alpha):  # type: ignore[arg-type]
            raise SymbolError("verification failed: the alpha plane does not read back")
        if (file.icc, file.exif, file.xmp) != self._metadata:
            raise SymbolError("verification failed: the metadata does not read back")
        return decibels(squares, picture.pixels.size)

    def _squares(self, file: AecFile, expected: list[bytes]) -> int:
        """Squared error of a file's picture, whose latents must have these digests."""
        pixels = self._picture.pixels
        if file.header.exact:
            return sum(
                squared_error(part, pixels[top:bottom, left:right])
                for (left, top, right, bottom), part in exact.parts(file, self._threads)
            )
        grey, model = file.header.colour is Colour.GREY, model_of(self._model, file)

        def latents(index: int) -> Float:
            box, tile = boxes[index], file.tiles[index]
            assert tile is not None  # container.read refuses files that lack one
            size = (padded(box[3]) - box[1], padded(box[2]) - box[0])
            y_hat = decode_tile(model, tile, size, file.header.quality, grey)
            if _digest(y_hat) != expected[index]:
                raise SymbolError("verification failed: a tile does not decode to what was coded")
            return y_hat

        boxes, squares, top = list(file.header.boxes), 0, 0
        for part in painted_rows(model, file.header, latents, self._threads):
            squares += squared_error(part, pixels[top : top + len(part)])
            top += len(part)
        return squares

    def decoded(self) -> Picture:
        """What a decoder makes of the file encoded last; its symbols are not decoded again."""
        file = container.read(self._coded, container.MAX_SIDE**2)
        if self._y_hat:
            model = model_of(self._model, file)
            pixels = paint(model, file.header, self._y_hat.__getitem__, self._threads)
        else:  # not kept
            pixels = pixel_decoder(file, self._threads)(None)
        return Picture(pixels, self._picture.alpha)

    def _turned(self, header: Header, level: Level) -> Header:
        """The head with the axes of colour that the picture is to be coded on."""
        able = level.turns and self._model.networks.can_turn and header.quality >= FROM
        if not (self._turns and able) or header.colour is Colour.GREY:
            return header
        if level.tries:
            axes = best_axes(self._model, self._picture.pixels, header.quality, level.tries)
        else:
            if self._guess is None:
                self._guess = guessed_axes(self._model, self._picture.pixels)
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

    def _tiles(self, header: Header, level: Level, sample: Sample | None) -> list[CodedTile]:
        """The coded tiles, their y_hat if these are to be kept, and digests of them.

        sample: where to add what the filter is tuned by.
        """
        grey, model = header.colour is Colour.GREY, turned_model(self._model, header.axes)
        workers = self._workers(header, level)
        watch = Watch(header.tile_count, workers, self._time_limit, self._report)
        turn = threading.BoundedSemaphore(painters(workers))

        def encode_box(box: Box) -> CodedTile:
            with watch.tile() as clock:
                window = self._window(model, header, box)
                coded = choose(model, window, header.quality, grey, level, clock, turn)
                if sample is not None:
                    with turn:
                        look(model, window, coded, header.quality, sample)
            tile = write_tile(model, coded, header.quality)
            digest = _digest(coded.y_hat) if self._verifiable else b""
            return tile, coded.y_hat if self._keep else None, digest

        found = list(each(encode_box, header.boxes, workers > 1, workers))
        if header.tile_count > 1:
            model.networks.close()
        return found

    def _window(self, model: Model, header: Header, box: Box) -> Window:
        """A tile and its surroundings; the latents are kept if every quality has the same."""
        grown = grow(box, model.halo, header.width, header.height)
        pixels = cut(self._picture.pixels, grown)
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


def _digest(data: bytes | Float) -> bytes:
    """A digest of bytes or of the values of an array."""
    raw = data if isinstance(data, bytes) else np.ascontiguousarray(data + np.float32(0)).data
    return hashlib.sha256(raw).digest()  # + 0: both zeros are one value


def _kept_metadata(picture: Picture, metadata: str) -> tuple[bytes | None, ...]:
    """(ICC profile, EXIF, XMP), those that "all", "icc" or "none" keeps."""
    icc = picture.icc if metadata != "none" else None
    exif, xmp = (picture.exif, picture.xmp) if metadata == "all" else (None, None)
    return icc, exif, xmp


def _header(picture: Picture, model_id: bytes, quality: int) -> Header:
    """The head of the file of a picture. Raises LimitError."""
    height, width = picture.pixels.shape[:2]
    if max(height, width) > container.MAX_SIDE:
        raise LimitError(f"{width}x{height}: sides must be 1 to {container.MAX_SIDE} pixels")
    colour = Colour.GREY if picture.pixels.ndim == 2 else Colour.RGB
    tile = TILE if width * height > SINGLE_TILE_PIXELS else 0
    return Header(model_id, colour, picture.alpha is not None, width, height, quality, tile)
