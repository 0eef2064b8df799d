"""From latents to pixels, tile by tile, with halos so that no seam shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aecodec.container import Colour, Header
from aecodec.cost import grey_levels
from aecodec.model import Model
from aecodec.tile import LATENT
from aecodec.window import Box, padded

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

TILE = 1024  # side of the tiles of a large picture


def each(
    function: Callable[[T], R], items: Iterable[T], parallel: bool, workers: int
) -> Iterator[R]:
    """map, on a few threads if asked: the networks and the coder release the interpreter."""
    if not parallel or workers < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def paint(model: Model, header: Header, latents: Callable[[int], Float], threads: int) -> Pixels:
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
        return np.concatenate(list(each(latents, part, parallel, workers)), 2)

    above, here = None, row(0)
    for index in range(header.rows):
        below = row(index + 1)
        y_hat, skipped = _with_margins(above, here, below, model.halo // LATENT)

        def fill(box: Box, y_hat: Float = y_hat, skipped: int = skipped) -> None:
            left, top, right, bottom = box
            start = max(0, left - model.halo)
            stop = min(padded(header.width), padded(right) + model.halo)
            part = np.ascontiguousarray(y_hat[:, :, start // LATENT : stop // LATENT])
            x_hat = model.networks.synthesis(part, header.quality)
            x_hat = x_hat[skipped : skipped + bottom - top, left - start : right - start]
            target = pixels[top:bottom, left:right]
            target[:] = grey_levels(x_hat) if grey else x_hat

        row_boxes = boxes[index * header.columns : (index + 1) * header.columns]
        for _ in each(fill, row_boxes, parallel, workers):
            pass
        above, here = here, below
    if parallel:
        model.networks.close()
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
