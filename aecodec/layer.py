"""Parts of a picture that are kept sample by sample, over what the synthesis makes of the rest.

    samples and where they are taken -> VP8L with alpha -> layer of a tile
    layer of a tile -> samples -> over the pixels of the synthesis

So text beside a photograph stays as it is, and neither pays for the other. docs/format.md is
normative; `aecodec.repeats` finds what is worth it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aecodec import vp8l
from aecodec.container import AecFile
from aecodec.errors import FormatError, SymbolError
from aecodec.paint import each, tile_workers

Pixels = npt.NDArray[np.uint8]
Blocks = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # left, top, right, bottom


def pack(pixels: Pixels, taken: Blocks, slowly: bool = False) -> bytes:
    """The layer that keeps the pixels (h,w) or (h,w,3) where they are taken (h,w); b"" for none."""
    if not taken.any():
        return b""
    samples = np.dstack([vp8l.coloured(pixels), np.full(taken.shape, 255, np.uint8)])
    samples[~taken] = 0
    return struct.pack("<H", vp8l.checksum(samples)) + vp8l.pack(samples, slowly)


def unpack(layer: bytes, height: int, width: int) -> tuple[Pixels, Blocks]:
    """Samples (h,w,3) of a layer, and where they are taken (h,w).

    Raises what `vp8l.unpack` raises, SymbolError for other samples than were coded.
    """
    samples = vp8l.unpack(layer[2:], height, width)
    if layer[:2] != struct.pack("<H", vp8l.checksum(samples)):
        raise SymbolError("the samples of a layer are not those that were coded")
    return samples[..., :3], samples[..., 3] > 0


def laid(
    file: AecFile, rows: Iterator[Pixels], threads: int, damaged: list[Box] | None = None
) -> Iterator[Pixels]:
    """The rows of tiles that the synthesis paints, from the top, with the layers over them.

    With a list `damaged`, tiles whose layer cannot be decoded are noted there. Else raises what
    `unpack` raises.
    """
    header = file.header
    if not header.layered:
        yield from rows
        return
    boxes, workers = list(header.boxes), tile_workers(header, threads)

    def lay(index: int) -> None:
        left, top, right, bottom = box = boxes[index]
        tile = file.tiles[index]
        if tile is None or not tile.layer:
            return
        try:
            samples, taken = unpack(tile.layer, bottom - top, right - left)
        except (FormatError, SymbolError):
            if damaged is None:
                raise
            if box not in damaged:
                damaged.append(box)
            return
        part = pixels[:, left:right]
        part[taken] = samples[taken] if part.ndim == 3 else samples[taken][:, 1]

    for number, pixels in enumerate(rows):
        row = range(number * header.columns, (number + 1) * header.columns)
        for _ in each(lay, row, header.tile_count > 1, workers):
            pass
        yield pixels
