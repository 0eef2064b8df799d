"""Rate-distortion-optimised quantisation: the encoder's choice of symbols, free for decoders.

Rounding to the nearest integer k is best for the error alone. With the steps of this codec
(step^2 = 26 / lambda, see docs/training.md) one squared step of error costs 26 / 3 bits, so
taking k - 1 instead of k pays when

    26/3 * ((r - k + 1)^2 - (r - k)^2) < bits(k) - bits(k - 1)       for r, k > 0,
    r - (k - 1/2) < 3/52 * (bits(k) - bits(k - 1)).

The difference of bits comes from the frozen frequency tables.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]

# Share of the theoretical shift that is taken where nothing else is known (in training; encoders:
# `aecodec.effort`). Later symbols are predicted from earlier ones, which the formula leaves out;
# chosen on the validation set.
STRENGTH = 0.5
STEP_WORTH = 26 / 3  # bits that one squared step is worth by the formula
DEEPEST = 16  # symbols from here on are simply rounded: their tables are nearly flat


def shifts(frequencies: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64]) -> Float:
    """(tables, DEEPEST + 1): how far above k - 1/2 a residual must lie to be coded as k."""
    out = np.zeros((len(starts) - 1, DEEPEST + 1), np.float32)
    for table in range(len(starts) - 1):
        counts = frequencies[starts[table] : starts[table + 1]].astype(np.float64)
        radius = (len(counts) - 1) // 2
        bits = -np.log2(counts[radius : 2 * radius + 1])  # of 0, 1, ... radius
        last = min(radius, DEEPEST - 1)
        dearer = np.maximum(np.diff(bits[: last + 1]), 0)
        out[table, 1 : last + 1] = dearer / (2 * STEP_WORTH)
    return out


def quantise(
    r: Float, index: npt.NDArray[np.uint8], table: Float, strength: float | Float = 1.0
) -> npt.NDArray[np.int32]:
    """Symbols (n,) of residuals r (n,) in steps, with scale indices index (n,).

    `table` comes from `shifts`; index 0 is the certain zero. strength: share of the shift that
    is taken, one for all or (n,); 0 is plain rounding. A symbol shrinks by one at most.
    """
    symbols = np.zeros(r.shape, np.int32)
    size = np.abs(r)
    at = np.flatnonzero(size > 0.5)  # of most latents the rest, which is 0, is much more
    at = at[index[at] != 0]
    size = size[at]
    k = np.rint(size)
    shift = table[index[at], np.minimum(k, DEEPEST).astype(np.intp)]
    shift *= strength[at] if isinstance(strength, np.ndarray) else np.float32(strength)
    k -= size - (k - np.float32(0.5)) < np.minimum(shift, np.float32(0.5))
    symbols[at] = np.copysign(k, r[at])
    return symbols


def zero_reach(index: npt.NDArray[np.uint8], table: Float, strength: float | Float = 1.0) -> Float:
    """How far from 0 residuals are still coded as 0, in steps; arguments as of `quantise`.

    index and strength may have any shapes that go together.
    """
    reach = np.minimum(table[:, 1].take(index) * strength, np.float32(0.5)) + np.float32(0.5)
    return np.where(index > 0, reach, np.float32(np.inf))
