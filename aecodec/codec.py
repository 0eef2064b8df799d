"""The pipeline both ways; every stage is in a module of its own.

    encode: pixels -> g_a -> u -> h_a -> z -> coded; u -> four steps (prior, round, code)
            -> payload -> container
    decode: container -> payload -> z -> four steps (prior, decode) -> y_hat -> g_s -> pixels

A picture larger than SINGLE_TILE_PIXELS is cut into tiles. Each tile is coded on its own, but
the transforms read a halo of pixels over its edges, so that the picture has no seams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aecodec import alpha, container
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.cost import grey_levels
from aecodec.damage import Damage, show_damage, survey
from aecodec.effort import DRAFT, Level
from aecodec.effort import level as effort_level
from aecodec.errors import AecError, FormatError, LimitError, SymbolError
from aecodec.model import Model, open_model
from aecodec.picture import Picture
from aecodec.search import choose
from aecodec.tile import LATENT, decode_tile, write_tile
from aecodec.transforms import default_threads
from aecodec.watch import Report, Watch
from aecodec.window import Box, Window, cut, grow, inner, padded

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

TILE = 1024  # side of the tiles of a large picture
SINGLE_TILE_PIXELS = 3 * 2**20  # larger pictures are tiled
KEPT_PIXELS = 2**24  # latents of larger pictures are not kept between encodings


def _map(
    function: Callable[[T], R], items: Iterable[T], parallel: bool, workers: int
) -> Iterator[R]:
    """map, on a few threads if asked: the networks and the coder release the interpreter."""
    if not parallel or workers < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def encode_picture(
    picture: Picture,
    quality: float = 75.0,
    *,
    metadata: str = "all",
    threads: int = 0,
    verify: bool = False,
    effort: int | None = None,
) -> bytes:
    """The bytes of an .aec file: `Encoder` for one quality, verified if asked for."""
    encoder = Encoder(picture, metadata=metadata, threads=threads, effort=effort, keep=verify)
    data = encoder.encode(quality)
    if verify:
        encoder.verify(data)
    return data


class Encoder:
    """A picture that is coded at one quality or at several, as the search for a size needs.

    metadata: "all", "icc" or "none". threads: 0 takes the cores of the machine. effort: a level
    of `aecodec.effort`, None for the default. time_limit: seconds after which the search of one
    encoding ends with what it has, 0 for none. report: called with how far an encoding is, 0 to
    1, from any thread. keep: hold what another encoding and `decoded` can use, unless the
    picture is very large. Raises AecError for choices that are not there, LimitError, ModelError.

    The bytes do not depend on the number of threads, nor on anything but picture, settings,
    model and release, except at levels with a gradient search or when a limit of time cuts in.
    """

    def __init__(
        self,
        picture: Picture,
        *,
        metadata: str = "all",
        threads: int = 0,
        effort: int | None = None,
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
        self._keep = keep and picture.width * picture.height <= KEPT_PIXELS
        self._model = open_model(threads=self._threads)
        self._alpha = None if picture.alpha is None else alpha.pack_alpha(picture.alpha)
        self._latents: dict[Box, Float] = {}
        self._y_hat: list[Float] = []
        self._file: AecFile | None = None

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
        header = _header(self._picture, self._model.weights.id, round(quality * 100))
        tiles, self._y_hat = self._tiles(header, DRAFT if draft and self.slow else self._level)
        self._file = AecFile(header, tiles, self._alpha, *self._metadata)
        return container.write(self._file)

    def verify(self, data: bytes) -> Picture:
        """What a decoder makes of a file of this encoder.

        Raises AecError when it cannot be decoded, SymbolError when it is not what was coded:
        alpha, metadata and, of the file encoded last, the latents that the pixels are made of.
        """
        file, picture = container.read(data, container.MAX_SIDE**2), self._picture
        expected = self._y_hat if file == self._file else []
        grey = file.header.colour is Colour.GREY

        def latents(index: int) -> Float:
            box, tile = boxes[index], file.tiles[index]
            assert tile is not None  # container.read refuses files that lack one
            size = (padded(box[3]) - box[1], padded(box[2]) - box[0])
            y_hat = decode_tile(self._model, tile, size, file.header.quality, grey)
            if expected and not np.array_equal(y_hat, expected[index]):
                raise SymbolError("verification failed: a tile does not decode to what was coded")
            return y_hat

        boxes = list(file.header.boxes)
        pixels = _paint(self._model, file.header, latents, self._threads)
        plane = None
        if file.alpha is not None:
            plane = alpha.unpack_alpha(file.alpha, picture.height, picture.width)
        if not np.array_equal(plane, picture.alpha):  # type: ignore[arg-type]
            raise SymbolError("verification failed: the alpha plane does not read back")
        if (file.icc, file.exif, file.xmp) != self._metadata:
            raise SymbolError("verification failed: the metadata does not read back")
        return Picture(pixels, plane, *self._metadata)

    def decoded(self) -> Picture:
        """What a decoder makes of the file encoded last; its symbols are not decoded again."""
        assert self._file is not None
        header = self._file.header
        if self._y_hat:
            pixels = _paint(self._model, header, self._y_hat.__getitem__, self._threads)
        else:  # not kept
            pixels = _decode_pixels(self._model, header, self._file.tiles, self._threads)
        return Picture(pixels, self._picture.alpha)

    def _tiles(self, header: Header, level: Level) -> tuple[tuple[Tile, ...], list[Float]]:
        """The coded tiles and, if they are to be kept, their y_hat."""
        grey, model = header.colour is Colour.GREY, self._model
        # A gradient search takes all threads by itself, and much memory.
        workers = 1 if header.tile_count == 1 or level.steps else self._threads
        watch = Watch(header.tile_count, workers, self._time_limit, self._report)

        def encode_box(box: Box) -> tuple[Tile, Float | None]:
            with watch.tile() as clock:
                window = self._window(header, box)
                coded = choose(model, window, header.quality, grey, level, clock)
            tile = write_tile(model, coded, header.quality)
            return tile, coded.y_hat if self._keep else None

        found = list(_map(encode_box, header.boxes, workers > 1, workers))
        return tuple(tile for tile, _ in found), [y for _, y in found if y is not None]

    def _window(self, header: Header, box: Box) -> Window:
        """A tile and its surroundings; the latents are kept if every quality has the same."""
        grown = grow(box, self._model.halo, header.width, header.height)
        pixels = cut(self._picture.pixels, grown)
        u = self._latents.get(box)
        if u is None:
            u = self._model.networks.analysis(pixels, header.quality)
            if self._keep and not self._model.networks.analysis_follows_quality:
                self._latents[box] = u
        height, width = header.height - grown[1], header.width - grown[0]
        rows, columns = inner(box, grown)
        return Window(
            pixels, u, rows, columns, min(height, len(pixels)), min(width, pixels.shape[1])
        )


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


def decode_file(
    data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0
) -> Picture:
    """The picture in the bytes of an .aec file.

    Raises FormatError, ChecksumError, UnsupportedError, LimitError, ModelError, SymbolError.
    """
    file = container.read(data, max_pixels)
    header = file.header
    threads = threads or default_threads()
    model = open_model(header.model_id.hex(), threads)
    plane = None
    if file.alpha is not None:
        plane = alpha.unpack_alpha(file.alpha, header.height, header.width)
    pixels = _decode_pixels(model, header, file.tiles, threads)
    return Picture(pixels, plane, file.icc, file.exif, file.xmp)


def decode_damaged(
    data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0
) -> tuple[Picture, Damage]:
    """Whatever can be had from a damaged file, and what could not; a whole one gives no damage.

    The head must be intact. Damaged tiles are grey and opaque; within the halo of one the
    picture is less exact. Raises what decode_file raises for the head and for the model.
    """
    file = container.read(data, max_pixels, damaged_ok=True)
    header = file.header
    threads = threads or default_threads()
    model = open_model(header.model_id.hex(), threads)
    plane = None
    if file.alpha is not None:
        with contextlib.suppress(FormatError):
            plane = alpha.unpack_alpha(file.alpha, header.height, header.width)
    alpha_lost = header.alpha and plane is None
    if alpha_lost:
        plane = np.full((header.height, header.width), 255, np.uint8)
    damaged: list[Box] = []
    pixels = _decode_pixels(model, header, file.tiles, threads, damaged)
    damaged.sort(key=lambda box: (box[1], box[0]))  # threads finish in any order
    picture = Picture(pixels, plane, file.icc, file.exif, file.xmp)
    show_damage(picture, damaged)
    return picture, survey(data, header, damaged, alpha_lost)


def _decode_pixels(
    model: Model,
    header: Header,
    tiles: Sequence[Tile | None],
    threads: int,
    damaged: list[Box] | None = None,
) -> Pixels:
    """All tiles. With a list `damaged`, tiles that cannot be decoded are noted there and taken
    as zeros."""
    grey, boxes = header.colour is Colour.GREY, list(header.boxes)

    def decode(index: int) -> Float:
        tile, box = tiles[index], boxes[index]
        size = (padded(box[3]) - box[1], padded(box[2]) - box[0])
        try:
            if tile is None:
                raise FormatError("a tile is missing")
            return decode_tile(model, tile, size, header.quality, grey)
        except (FormatError, SymbolError):
            if damaged is None:
                raise
            damaged.append(box)
            # Zeros are the mean of all pictures: the mildest thing for a neighbour's halo.
            latents = (len(model.prior.luma), size[0] // LATENT, size[1] // LATENT)
            return np.zeros(latents, np.float32)

    return _paint(model, header, decode, threads)


def _paint(model: Model, header: Header, latents: Callable[[int], Float], threads: int) -> Pixels:
    """The pixels of y_hat (M,h,w) of every tile, row by row: three rows are held at a time."""
    grey = header.colour is Colour.GREY
    shape = (header.height, header.width) if grey else (header.height, header.width, 3)
    pixels = np.empty(shape, np.uint8)
    boxes = list(header.boxes)
    parallel = header.tile_count > 1
    left, top, right, bottom = boxes[0]
    # Tiles larger than our own come from strangers: memory must not grow with the cores.
    workers = max(1, min(threads, threads * TILE * TILE // ((right - left) * (bottom - top))))

    def row(index: int) -> Float | None:
        if not 0 <= index < header.rows:
            return None
        part = range(index * header.columns, (index + 1) * header.columns)
        return np.concatenate(list(_map(latents, part, parallel, workers)), 2)

    above, here = None, row(0)
    for index in range(header.rows):
        below = row(index + 1)
        y_hat, skipped = _with_margins(above, here, below, model.halo // LATENT)

        def paint(box: Box, y_hat: Float = y_hat, skipped: int = skipped) -> None:
            left, top, right, bottom = box
            start = max(0, left - model.halo)
            stop = min(padded(header.width), padded(right) + model.halo)
            part = np.ascontiguousarray(y_hat[:, :, start // LATENT : stop // LATENT])
            x_hat = model.networks.synthesis(part, header.quality)
            x_hat = x_hat[skipped : skipped + bottom - top, left - start : right - start]
            target = pixels[top:bottom, left:right]
            target[:] = grey_levels(x_hat) if grey else x_hat

        row_boxes = boxes[index * header.columns : (index + 1) * header.columns]
        for _ in _map(paint, row_boxes, parallel, workers):
            pass
        above, here = here, below
    return pixels


def _with_margins(
    above: Float | None, here: Float | None, below: Float | None, margin: int
) -> tuple[Float, int]:
    """A row of latents with a margin of its neighbours; pixels that the upper margin adds."""
    parts = [] if above is None else [above[:, -margin:]]
    parts += [row for row in (here,) if row is not None]
    parts += [] if below is None else [below[:, :margin]]
    y_hat = np.concatenate(parts, 1) if len(parts) > 1 else parts[0]
    return y_hat, 0 if above is None else margin * LATENT
