"""How a picture is kept in fewest bytes: by the transform alone, under a layer, or exactly.

All ways are tried on the picture with little effort, or on four parts of a larger one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec import exact, layer
from aecodec.coder import TransformCoder
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


class Trial:
    """A picture tried each way at several qualities; what these have in common is made once.

    pixels, shown: (H,W) or (H,W,3), as they are and as the transform gets them. blocks: what a
    layer would keep, or None. exactly: whether to try that as well.
    """

    def __init__(
        self,
        model: Model,
        pixels: Pixels,
        shown: Pixels,
        blocks: Blocks | None,
        exactly: bool,
        threads: int,
    ) -> None:
        coder = functools.partial(TransformCoder, model, threads=threads, keep=True, turns=False)
        self._id, self._layered, self._exactly = model.weights.id, blocks is not None, exactly
        self._plain: list[TransformCoder] = []
        self._under: list[TransformCoder] = []
        self._layers = self._exact = 0  # bytes
        for box in parts(pixels.shape[1], pixels.shape[0]):
            left, top, right, bottom = box
            part, under = pixels[top:bottom, left:right], shown[top:bottom, left:right]
            self._plain.append(coder(under))
            if exactly:
                self._exact += len(exact.pack(part).payload)
            if blocks is not None:
                taken = enlarged(blocks, box)
                self._layers += len(layer.pack(part, taken))
                self._under.append(coder(filled(under, taken)))

    def sizes(self, quality: int, level: Level) -> Sizes:
        """What each way takes at a quality in hundredths, with no more effort than a level's."""
        draft = DRAFT if level.number > DRAFT.number else level

        def coded(coders: list[TransformCoder]) -> int:
            files = (coder.encode(coder.header(self._id, quality), draft) for coder in coders)
            return sum(len(tile.payload) for file in files for tile in file.tiles)

        return Sizes(
            coded(self._plain),
            self._layers + coded(self._under) if self._layered else None,
            self._exact if self._exactly else None,
        )


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
