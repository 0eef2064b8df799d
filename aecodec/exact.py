"""Pictures kept sample by sample, where that takes no more bytes: text, screens, drawings.

    samples of a tile -> lossless WebP (VP8L) -> payload, and back

What repeats itself is what transform and prior are worst at, and what dictionaries are made for:
a screenshot that at quality 95 would take 73 kB takes 19 kB so, and comes back as it was.
docs/format.md is normative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aecodec import vp8l
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import FormatError, SymbolError
from aecodec.head import FINEST, NO_AXES, NO_MODEL
from aecodec.paint import each, tile_workers

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom


def file_of(header: Header, pixels: Pixels, threads: int, slowly: bool = False) -> AecFile:
    """The file of a picture without alpha chunk and metadata; header: of the picture coded."""
    header = replace(header, model_id=NO_MODEL, quality=FINEST, axes=NO_AXES, exact=True)

    def tile(box: Box) -> Tile:
        left, top, right, bottom = box
        return pack(pixels[top:bottom, left:right], slowly)

    found = each(tile, header.boxes, header.tile_count > 1, threads)
    return AecFile(header, tuple(found))


def pack(pixels: Pixels, slowly: bool = False) -> Tile:
    """A tile of samples (h,w) or (h,w,3), sides at most 16384."""
    return Tile(vp8l.checksum(pixels), vp8l.pack(pixels, slowly))


def unpack(tile: Tile, height: int, width: int, grey: bool) -> Pixels:
    """The samples (h,w) or (h,w,3) of a tile.

    Raises what `vp8l.unpack` raises, SymbolError for other samples than were coded.
    """
    three = vp8l.unpack(tile.payload, height, width, alpha=False)[..., :3]
    pixels = np.ascontiguousarray(three[..., 1] if grey else three)
    if vp8l.checksum(pixels) != tile.checksum:
        raise SymbolError("the samples of an exact tile are not those that were coded")
    return pixels


def parts(
    file: AecFile, threads: int, damaged: list[Box] | None = None
) -> Iterator[tuple[Box, Pixels]]:
    """Box and samples of every tile in turn.

    With a list `damaged`, tiles that cannot be decoded are noted there and left out. Else raises
    what `unpack` raises.
    """
    header = file.header

    def part(index: int) -> tuple[Box, Pixels | None]:
        tile, box = file.tiles[index], boxes[index]
        left, top, right, bottom = box
        try:
            if tile is None:
                raise FormatError("a tile is missing")
            grey = header.colour is Colour.GREY
            return box, unpack(tile, bottom - top, right - left, grey)
        except (FormatError, SymbolError):
            if damaged is None:
                raise
            return box, None

    boxes, workers = list(header.boxes), tile_workers(header, threads)
    for first in range(0, len(boxes), header.columns):
        row = range(first, first + header.columns)
        for box, pixels in each(part, row, len(boxes) > 1, workers):
            if pixels is not None:
                yield box, pixels
            elif damaged is not None:
                damaged.append(box)


def pixels_of(file: AecFile, threads: int, damaged: list[Box] | None = None) -> Pixels:
    """The picture (H,W) or (H,W,3) of an exact file; see `parts`. What is damaged is 0."""
    header = file.header
    shape = (header.height, header.width)
    pixels = np.zeros(shape if header.colour is Colour.GREY else (*shape, 3), np.uint8)
    for (left, top, right, bottom), part in parts(file, threads, damaged):
        pixels[top:bottom, left:right] = part
    return pixels
