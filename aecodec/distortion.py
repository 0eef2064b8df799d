"""How far pixels are from pixels, in bounded memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from aecodec.picture import Picture

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

PEAK = 255
_BAND = 2**20  # samples compared at a time: their differences take eight times their memory


def hidden_by_alpha(picture: Picture) -> Mask | None:
    """Where (H,W) a picture's alpha is 0, so that colour is not seen; None if nowhere.

    None as well if it is 0 everywhere: such files come from programs that write 32 bits and mean
    24, and show a picture where alpha is not looked at.
    """
    mask = None if picture.alpha is None else picture.alpha == 0
    return None if mask is None or not mask.any() or mask.all() else mask


def samples_seen(pixels: Pixels, hidden: Mask | None) -> int:
    """How many samples of colour are not hidden so."""
    samples = int(pixels.size)
    return samples if hidden is None else samples - samples // hidden.size * int(hidden.sum())


def squared_error(a: Pixels, b: Pixels, hidden: Mask | None = None) -> int:
    """Sum of squared differences over all samples of two arrays of one shape, (H,W) or (H,W,3).

    hidden: pixels (H,W) to leave out.
    """
    squares, rows = 0, max(1, _BAND // max(1, a[:1].size))
    for top in range(0, len(a), rows):
        difference = a[top : top + rows].astype(np.int32) - b[top : top + rows]
        if hidden is not None:
            difference[hidden[top : top + rows]] = 0
        squares += int(np.square(difference).sum(dtype=np.int64))
    return squares


def decibels(squares: int, samples: int) -> float:
    """PSNR in dB of 8-bit samples, from the sum of their squared errors; inf for none."""
    return 10 * math.log10(PEAK**2 * samples / squares) if squares else math.inf
