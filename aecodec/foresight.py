"""What a symbol does to the bits of those that are predicted from it: slopes for the search.

Every coding step predicts means and scales from what the steps before it have coded, and all of
them from the hyper-latents. Here the bits of all symbols are differentiated by both, through the
networks of the probability model backwards (their rounding counts as the identity). A symbol's
own bits are not in it: `aecodec.quantise` weighs those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.prior import (
    ACTIVATION_MAX,
    ACTIVATION_MIN,
    GAIN_SHIFT,
    INVERSE_SHIFT,
    MEAN_UNITS,
    STEPS,
    UNITS,
    Index,
    Prior,
    interpolate,
)
from aecodec.tile import Coded

Float = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Slopes:
    """Derivatives of a tile's bits: by y_hat (M,h,w) in steps, and by z (Z,h/4,w/4)."""

    y: Float
    z: Float


class Foresight:
    """The probability model of one `Cost`, backwards."""

    def __init__(self, cost: Cost) -> None:
        self._networks, self._levels = cost.model.networks, cost.model.prior.levels
        self._prior: Prior = cost.model.at(cost.quality, cost.grey)
        self._step = cost.model.networks.inverse_gain(cost.quality) / MEAN_UNITS
        gain, inverse = (
            interpolate(table, cost.quality)
            for table in (cost.model.prior.gain, cost.model.prior.inverse)
        )
        self._mean_per_raw = self._prior.walk.rows(gain) / (2.0**GAIN_SHIFT * MEAN_UNITS)
        self._inverse = inverse[:, None, None]
        self._bits = cost.model.y_tables.by_size

    def slopes(self, coded: Coded) -> Slopes:
        """Those at the symbols of a tile."""
        prior, networks = self._prior, self._networks
        u, when = self._context(coded)
        m, h, w = u.shape
        z = (coded.z[None] * UNITS).astype(np.float32)
        common, context = prior.common(coded.z), prior.empty_context(h, w)
        by_u, by_common = np.zeros(u.shape, np.float32), np.zeros(common.shape, np.float32)
        for step in range(STEPS):
            known = when < step
            context[0, :m] = u * known
            outputs = self._by_outputs(*coded.steps[step][:2])
            by_context, more = networks.prior_slope(step, context, common, *outputs)
            by_u += by_context * known
            by_common += more
        by_y = by_u * (self._inverse * (MEAN_UNITS / 2.0**INVERSE_SHIFT)).astype(np.float32)
        return Slopes(by_y, networks.hyper_slope(z, by_common))

    def _context(self, coded: Coded) -> tuple[Float, npt.NDArray[np.uint8]]:
        """What later steps see of every element (M,h,w), in 1/64 of u, and which step codes it."""
        y_hat = np.rint(coded.y_hat / self._step).astype(np.int64)
        u = (y_hat * self._inverse + (1 << (INVERSE_SHIFT - 1))) >> INVERSE_SHIFT
        when = np.full(u.shape, STEPS, np.uint8)
        for step in range(STEPS):
            for view in self._prior.walk.views(step, when):
                view[...] = step
        return np.clip(u, ACTIVATION_MIN, ACTIVATION_MAX).astype(np.float32), when

    def _by_outputs(self, symbols: Int32, index: Index) -> tuple[Float, Float]:
        """Derivatives of a step's bits by the prior's means and scale indices, (4,M/4,n) each."""
        top = self._bits.shape[1] - 1
        k, level = np.minimum(np.abs(symbols), top), index.astype(np.intp)
        farther = self._bits[level, np.minimum(k + 1, top)]
        nearer = self._bits[level, np.maximum(k - 1, 0)]
        by_residual = (farther - nearer) / 2 * np.sign(symbols)
        up, down = np.minimum(level + 1, self._levels - 1), np.maximum(level - 1, 0)
        by_index = (self._bits[up, k] - self._bits[down, k]) / (up - down)
        rows = len(self._mean_per_raw)
        walk = self._prior.walk
        m = len(self._inverse)
        return (
            walk.spread(-by_residual.reshape(rows, -1) * self._mean_per_raw, m),
            walk.spread(by_index.reshape(rows, -1) / UNITS, m),
        )
