"""From latents to pixels, tile by tile, with halos so that no seam shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aecodec.container import Box, Colour, Header
from aecodec.cost import grey_levels
from aecodec.layer import Layers, no_layers, open_boxes
from aecodec.model import Model
from aecodec.tile import LATENT
from aecodec.window import sight

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Rows = tuple[list[Float], list[Float], list[Float]]  # tiles of a row, of the one above and below
T = TypeVar("T")
R = TypeVar("R")

TILE = 1024  # side of the tiles of a large picture


def each(
    function: Callable[[T], R], items: Iterable[T], parallel: bool, workers: int
) -> Iterator[R]:
    """map, on a few threads if asked: the networks release the interpreter while they run."""
    if not parallel or workers < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def painters(workers: int) -> int:
    """How many of so many threads may run a synthesis at once.

    One uses all cores itself and takes a quarter of a gigabyte; coding does neither.
    """
    return -(-workers // 4)


def tile_workers(header: Header, threads: int) -> int:
    """How many tiles may be decoded at once.

    Tiles larger than our own come from strangers: memory must not grow with the cores.
    """
    left, top, right, bottom = next(header.boxes)
    return max(1, min(threads, threads * TILE * TILE // ((right - left) * (bottom - top))))


def gathered(header: Header, rows: Iterable[Pixels]) -> Pixels:
    """The pixels (H,W) or (H,W,3) of rows of tiles, from the top."""
    shape = (header.height, header.width)
    pixels = np.empty(shape if header.colour is Colour.GREY else (*shape, 3), np.uint8)
    top = 0
    for part in rows:
        pixels[top : top + len(part)] = part
        top += len(part)
    return pixels


def painted_rows(
    model: Model,
    header: Header,
    latents: Callable[[int], Float],
    threads: int,
    layers: Layers = no_layers,
) -> Iterator[Pixels]:
    """The pixels of y_hat (M,h,w) of every tile, a row of tiles at a time, from the top.

    The latents of two rows are held. Where a layer covers the picture, nothing is painted.
    """
    boxes, margin = list(header.boxes), model.halo // LATENT
    parallel = header.tile_count > 1
    workers = tile_workers(header, threads)

    def row(index: int) -> list[Float]:
        part = range(index * header.columns, (index + 1) * header.columns)
        return list(each(latents, part, parallel, workers)) if index < header.rows else []

    above: list[Float] = []
    here = row(0)
    for index in range(header.rows):
        rows = (above, here, row(index + 1))
        _, top, _, bottom = boxes[index * header.columns]
        shape = (bottom - top, header.width)
        pixels = np.empty(shape if header.colour is Colour.GREY else (*shape, 3), np.uint8)

        def fill(column: int, rows: Rows = rows, row: int = index, pixels: Pixels = pixels) -> None:
            number = row * header.columns + column
            left, _, right, _ = boxes[number]
            part, over = pixels[:, left:right], layers(number)
            own = [(0, 0, right - left, len(part))]
            if over is not None:
                own = open_boxes(over.taken, 2 * model.halo)
            start = (model.halo if column else 0, model.halo if rows[0] else 0)
            _paint(model, header.quality, _around(rows, column, margin), start, part, own)
            if over is not None:
                over.lay(part)

        for _ in each(fill, range(header.columns), parallel, painters(workers)):
            pass
        yield pixels
        above, here = [tile[:, -margin:].copy() for tile in here], rows[2]
    if parallel:
        model.networks.close()


def _paint(
    model: Model, quality: int, y_hat: Float, start: tuple[int, int], pixels: Pixels,
    boxes: Iterable[Box],
) -> None:  # fmt: skip
    """Fill boxes of the pixels (h,w) or (h,w,3) of a tile.

    start: column and row, in pixels of y_hat (M,h,w), of the tile's first pixel. The synthesis sees
    a halo around each box, and so makes of it what it would make of it in the whole.
    """
    for left, top, right, bottom in boxes:
        x, y = left + start[0], top + start[1]
        rows = sight(y, bottom + start[1], model.halo, y_hat.shape[1])
        columns = sight(x, right + start[0], model.halo, y_hat.shape[2])
        x_hat = model.networks.synthesis(np.ascontiguousarray(y_hat[:, rows, columns]), quality)
        x, y = x - columns.start * LATENT, y - rows.start * LATENT
        part = x_hat[y : y + bottom - top, x : x + right - left]
        pixels[top:bottom, left:right] = grey_levels(part) if pixels.ndim == 2 else part


def _around(rows: Rows, column: int, margin: int) -> Float:
    """The latents of a tile in the middle row with a margin of its neighbours, where it has any."""
    left, right = max(0, column - 1), column + 2
    strips = []
    for tiles, part in zip(rows, (slice(-margin, None), slice(None), slice(margin)), strict=True):
        if not tiles:
            continue
        beside = [tile[:, part] for tile in tiles[left:right]]
        if column:
            beside[0] = beside[0][..., -margin:]
        if right <= len(tiles):
            beside[-1] = beside[-1][..., :margin]
        strips.append(_joined(beside, 2))
    return _joined(strips, 1)


def _joined(parts: list[Float], axis: int) -> Float:
    """The parts one behind the other; a single one, as most pictures have, is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
