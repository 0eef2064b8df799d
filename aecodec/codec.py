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
from aecodec.damage import Damage, show_damage, survey
from aecodec.errors import FormatError, LimitError, SymbolError
from aecodec.model import Model, open_model
from aecodec.picture import Picture
from aecodec.tile import ALIGN, LATENT, decode_tile, encode_tile
from aecodec.transforms import default_threads

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom
T = TypeVar("T")
R = TypeVar("R")

TILE = 1024  # side of the tiles of a large picture
SINGLE_TILE_PIXELS = 3 * 2**20  # larger pictures are tiled


def padded(length: int) -> int:
    """Smallest multiple of ALIGN that is not below length."""
    return -(-length // ALIGN) * ALIGN


def _window(pixels: Pixels, box: Box) -> Pixels:
    """Pixels (H,W,3) of a box that may reach over the right and bottom edge (replicated)."""
    left, top, right, bottom = box
    cut = pixels[top : min(bottom, pixels.shape[0]), left : min(right, pixels.shape[1])]
    if cut.ndim == 2:
        cut = np.repeat(cut[..., None], 3, axis=2)
    missing = (bottom - top - cut.shape[0], right - left - cut.shape[1])
    return np.pad(cut, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def _grow(box: Box, halo: int, width: int, height: int) -> Box:
    """A tile's box padded to ALIGN and grown by a halo inside the padded picture."""
    left, top, right, bottom = box
    return (
        max(0, left - halo),
        max(0, top - halo),
        min(padded(width), padded(right) + halo),
        min(padded(height), padded(bottom) + halo),
    )


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
) -> bytes:
    """The bytes of an .aec file.

    quality: 0 (small) to 100 (good), continuous in hundredths. metadata: "all", "icc" or
    "none". threads: 0 takes the cores of the machine; the bytes do not depend on it. verify
    decodes what was made and compares it with what the encoder expects: the latents that the
    pixels are made of, alpha and metadata. Raises FormatError for a quality out of range,
    LimitError, ModelError, SymbolError when verification fails.
    """
    if not 0 <= quality <= 100:  # also refuses NaN
        raise FormatError(f"quality {quality:g} is not between 0 and 100")
    if metadata not in ("all", "icc", "none"):
        raise FormatError(f"metadata must be all, icc or none, not {metadata!r}")
    threads = threads or default_threads()
    model = open_model(threads=threads)
    header = _header(picture, model.weights.id, round(quality * 100))
    grey = header.colour is Colour.GREY

    def encode_box(box: Box) -> Tile:
        grown = _grow(box, model.halo, header.width, header.height)
        u = model.networks.analysis(_window(picture.pixels, grown), header.quality)
        rows, columns = _inner(box, grown)
        u = np.ascontiguousarray(u[:, rows, columns])
        return encode_tile(model, u, header.quality, grey, verify=verify)

    file = AecFile(
        header,
        tuple(_map(encode_box, header.boxes, header.tile_count > 1, threads)),
        alpha=None if picture.alpha is None else alpha.pack_alpha(picture.alpha),
        icc=picture.icc if metadata != "none" else None,
        exif=picture.exif if metadata == "all" else None,
        xmp=picture.xmp if metadata == "all" else None,
    )
    data = container.write(file)
    if verify:
        _verify(data, file, picture)
    return data


def _header(picture: Picture, model_id: bytes, quality: int) -> Header:
    """The head of the file of a picture. Raises LimitError."""
    height, width = picture.pixels.shape[:2]
    if max(height, width) > container.MAX_SIDE:
        raise LimitError(f"{width}x{height}: sides must be 1 to {container.MAX_SIDE} pixels")
    colour = Colour.GREY if picture.pixels.ndim == 2 else Colour.RGB
    tile = TILE if width * height > SINGLE_TILE_PIXELS else 0
    return Header(model_id, colour, picture.alpha is not None, width, height, quality, tile)


def _verify(data: bytes, file: AecFile, picture: Picture) -> None:
    """Read the file back; its tiles were decoded when they were made."""
    if container.read(data, container.MAX_SIDE**2) != file:
        raise SymbolError("verification failed: the file does not read back as it was written")
    if file.alpha is not None and picture.alpha is not None:
        plane = alpha.unpack_alpha(file.alpha, picture.height, picture.width)
        if not np.array_equal(plane, picture.alpha):
            raise SymbolError("verification failed: the alpha plane does not read back")


def _inner(box: Box, grown: Box) -> tuple[slice, slice]:
    """Where the padded tile lies in its grown window, in latents: (rows, columns)."""
    left, top = (box[0] - grown[0]) // LATENT, (box[1] - grown[1]) // LATENT
    width = (padded(box[2]) - box[0]) // LATENT
    height = (padded(box[3]) - box[1]) // LATENT
    return slice(top, top + height), slice(left, left + width)


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
    """All tiles, decoded row by row: only three rows of latents are held at a time.

    With a list `damaged`, tiles that cannot be decoded are noted there and taken as zeros.
    """
    grey = header.colour is Colour.GREY
    shape = (header.height, header.width) if grey else (header.height, header.width, 3)
    pixels = np.empty(shape, np.uint8)
    boxes = list(header.boxes)
    parallel = header.tile_count > 1
    left, top, right, bottom = boxes[0]
    # Tiles larger than our own come from strangers: memory must not grow with the cores.
    workers = max(1, min(threads, threads * TILE * TILE // ((right - left) * (bottom - top))))

    def decode(item: tuple[Tile | None, Box]) -> Float:
        tile, box = item
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

    def row(index: int) -> Float | None:
        if not 0 <= index < header.rows:
            return None
        part = slice(index * header.columns, (index + 1) * header.columns)
        return np.concatenate(
            list(_map(decode, zip(tiles[part], boxes[part], strict=True), parallel, workers)), 2
        )

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
            target[:] = _to_grey(x_hat) if grey else x_hat

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


def _to_grey(x_hat: Pixels) -> Pixels:
    """Mean of the three planes, rounded half up: (H,W,3) -> (H,W)."""
    total = x_hat.astype(np.uint16).sum(2)
    grey: Pixels = ((total * 2 + 3) // 6).astype(np.uint8)
    return grey
