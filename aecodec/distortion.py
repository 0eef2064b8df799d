"""How far pixels are from pixels, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

PEAK = 255
_BAND = 2**20  # samples compared at a time: their differences take eight times their memory


def squared_error(a: Pixels, b: Pixels) -> int:
    """Sum of squared differences over all samples of two arrays of one shape, (H,W) or (H,W,3)."""
    squares, rows = 0, max(1, _BAND // max(1, a[:1].size))
    for top in range(0, len(a), rows):
        difference = a[top : top + rows].astype(np.int32) - b[top : top + rows]
        squares += int(np.square(difference).sum(dtype=np.int64))
    return squares


def decibels(squares: int, samples: int) -> float:
    """PSNR in dB of 8-bit samples, from the sum of their squared errors; inf for none."""
    return 10 * math.log10(PEAK**2 * samples / squares) if squares else math.inf
