"""How a picture is kept in fewest bytes: by the transform alone, under a layer, or exactly.

All ways are tried on the picture with little effort, or on four parts of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec import exact, layer
from aecodec.coder import TransformCoder
from aecodec.container import Colour, Header
from aecodec.effort import DRAFT, Level
from aecodec.filling import filled
from aecodec.model import Model
from aecodec.repeats import BLOCK, enlarged
from aecodec.window import Box

Pixels = npt.NDArray[np.uint8]
Blocks = npt.NDArray[np.bool_]

SURE = 1.5  # times the exact bytes that a draft takes where no effort makes up for it
CLOSE = 1.1  # times the bytes of the other way where drafts cannot tell the smaller file
_WHOLE, _PART = 1024, 512  # sides up to which all is tried, and of the parts of longer ones


@dataclass(frozen=True)
class Sizes:
    """Bytes of what was tried each way; None where that is not to be had."""

    plain: int
    layered: int | None = None
    exact: int | None = None

    @property
    def ways(self) -> tuple[bool, ...]:
        """With a layer, without, or both where they take about as much: what is to be coded."""
        if self.layered is None:
            return (False,)
        ratio = self.layered / self.plain
        return (True,) * (ratio < CLOSE) + (False,) * (ratio > 1 / CLOSE)

    @property
    def surely_exact(self) -> bool:
        """Whether the transform need not be run on all of the picture."""
        least = self.plain if self.layered is None else min(self.plain, self.layered)
        return self.exact is not None and SURE * self.exact < least


def tried(
    model: Model,
    pixels: Pixels,
    shown: Pixels,
    blocks: Blocks | None,
    header: Header,
    level: Level,
    exactly: bool,
    threads: int,
) -> Sizes:
    """Sizes of the pixels (H,W) or (H,W,3), at the quality of their head.

    shown: what the transform gets of them.
    blocks: what a layer would keep, or None. level: no more effort is made. exactly: whether to
    try that as well.
    """
    draft = DRAFT if level.number > DRAFT.number else level
    plain = layered = whole = 0

    def coded(part: Pixels) -> int:
        height, width = part.shape[:2]
        colour = Colour.GREY if part.ndim == 2 else Colour.RGB
        own = Header(header.model_id, colour, False, width, height, header.quality)
        coder = TransformCoder(model, part, threads, turns=False)
        return sum(len(tile.payload) for tile in coder.encode(own, draft).tiles)

    for left, top, right, bottom in parts(header.width, header.height):
        part, under = pixels[top:bottom, left:right], shown[top:bottom, left:right]
        plain += coded(under)
        if exactly:
            whole += len(exact.pack(part).payload)
        if blocks is not None:
            taken = enlarged(blocks, (left, top, right, bottom))
            layered += len(layer.pack(part, taken)) + coded(filled(under, taken))
    return Sizes(plain, None if blocks is None else layered, whole if exactly else None)


def parts(width: int, height: int) -> Iterator[Box]:
    """Boxes that stand for a picture: all of it, or of a longer side two halves of _WHOLE."""
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            yield left, top, right, bottom


def _spans(side: int) -> Iterator[tuple[int, int]]:
    if side <= _WHOLE:
        yield 0, side
        return
    for quarter in (1, 3):
        start = (side * quarter // 4 - _PART // 2) // BLOCK * BLOCK
        yield start, start + _PART
