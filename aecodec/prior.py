"""The exact integer probability model: decoded symbols so far -> (mean, scale index).

Everything here is integer arithmetic, and the two networks it asks (h_s and the prior) give
integers, whatever runtime computes them: see docs/determinism.md. So encoder and decoder,
on any machine, agree on every table index and every mean.

Fixed point: y_hat and means are in 1/16 of a quantisation step; network inputs in 1/64 of
u = y / s; network means in 1/256 of u; scale indices in 1/64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float = npt.NDArray[np.float32]

# (step, quarter) -> phase: at each step every channel quarter is coded at another position
# of the 2x2 cells, so every step knows something about every position.
STEP_PHASES = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
STEPS = len(STEP_PHASES)
MEAN_UNITS = 16  # of y_hat and means, per quantisation step
UNITS = 64  # of network activations and scale indices
ACTIVATION_MIN, ACTIVATION_MAX = -16 * UNITS, 16 * UNITS - 1
GAIN_SHIFT, INVERSE_SHIFT = 20, 16  # fixed point of the gain tables
Z_LIMIT = 15  # hyper-latents are clipped to -15..15
QUALITY_STEP = 200  # quality tables hold a row every 2.00
MAX_QUALITY = 10000  # hundredths

# Called once per step with means (n,) in 1/16 and scale indices (n,); gives the symbols (n,).
Exchange = Callable[[int, Int64, Int64], Int32]


class ExactNetworks(Protocol):
    """What the model needs from a runtime; all values are integers held in float32."""

    def hyper_synthesis(self, z: Float) -> Float:
        """(1,Z,h/4,w/4) in 1/64 -> (1,W,h,w) in 1/64, not yet clipped."""

    def prior(self, step: int, context: Float, common: Float) -> tuple[Float, Float]:
        """context (1,M+4,h,w), common (1,W,h,w) -> means, scale indices (1,M,h,w)."""


@dataclass(frozen=True)
class PriorTables:
    """Frozen integer tables of one model; rows stand every QUALITY_STEP of quality.

    gain (R,M): 1/16 steps per 1/256 of u, times 2^20; inverse (R,M): 1/64 of u per 1/16 step,
    times 2^16; shift (R,M): what the quality adds to the scale index, in 1/64; vector (R,W):
    what it adds to h_s, in 1/64. luma (M,): channels that a grey picture uses. levels: scale
    tables, of which index 0 is the certain zero.
    """

    gain: Int64
    inverse: Int64
    shift: Int64
    vector: Int64
    luma: npt.NDArray[np.bool_]
    levels: int


def interpolate(table: Int64, quality: int) -> Int64:
    """Row of a quality table at a quality in hundredths: linear, in integers, half up."""
    i = min(quality // QUALITY_STEP, len(table) - 2)
    f = quality - i * QUALITY_STEP
    return (table[i] * (QUALITY_STEP - f) + table[i + 1] * f + QUALITY_STEP // 2) // QUALITY_STEP


def gather(step: int, array: npt.NDArray[np.generic], grey: Int64 | None) -> npt.NDArray[np.generic]:
    """Elements of (M,h,w) that a step codes, in coding order (n,).

    Quarters one after the other, each in channel, row, column order; `grey` is the list of
    channels to keep, None keeps all.
    """
    return np.concatenate([view.ravel() for view in _views(step, array, grey)])


def _views(
    step: int, array: npt.NDArray[np.generic], channels: Int64 | None
) -> list[npt.NDArray[np.generic]]:
    views = []
    for quarter, phase in enumerate(STEP_PHASES[step]):
        plane = array[quarter::4, phase // 2 :: 2, phase % 2 :: 2]
        if channels is not None:
            plane = plane[channels[channels % 4 == quarter] // 4]
        views.append(plane)
    return views


def _scatter(step: int, array: Int64, values: Int64, channels: Int64 | None) -> None:
    """Put coded elements (n,) back into (M,h,w); the mirror of `gather`."""
    start = 0
    for quarter, phase in enumerate(STEP_PHASES[step]):
        target = array[quarter::4, phase // 2 :: 2, phase % 2 :: 2]
        rows = slice(None) if channels is None else channels[channels % 4 == quarter] // 4
        shape = target[rows].shape
        size = int(np.prod(shape))
        target[rows] = values[start : start + size].reshape(shape)
        start += size


@dataclass(frozen=True)
class Prior:
    """The model at one quality (hundredths), for colour or grey pictures."""

    tables: PriorTables
    networks: ExactNetworks
    quality: int
    grey: bool

    @property
    def channels(self) -> Int64 | None:
        """Coded latent channels, or None for all of them."""
        return np.flatnonzero(self.tables.luma) if self.grey else None

    def steps_per_u(self) -> npt.NDArray[np.float64]:
        """(M,) quantisation steps per unit of u: the encoder scales with it."""
        row = interpolate(self.tables.gain, self.quality)
        return row * (256 / MEAN_UNITS / 2.0**GAIN_SHIFT)

    def run(self, z: Int32, exchange: Exchange) -> Int64:
        """Walk through the four steps; the same walk encodes and decodes.

        z (Z,h/4,w/4): decoded hyper-latents. exchange(step, means, indices) is asked for the
        symbols of each step. Returns y_hat (M,h,w) in 1/16 of a step.
        """
        m = len(self.tables.luma)
        h, w = z.shape[1] * 4, z.shape[2] * 4
        gain = interpolate(self.tables.gain, self.quality)[:, None, None]
        inverse = interpolate(self.tables.inverse, self.quality)[:, None, None]
        shift = interpolate(self.tables.shift, self.quality)[:, None, None]
        common = self._common(z)
        context = np.zeros((1, m + 4, h, w), np.float32)
        for phase in range(4):  # where each position stands in its 2x2 cell
            context[0, m + phase, phase // 2 :: 2, phase % 2 :: 2] = UNITS
        y_hat = np.zeros((m, h, w), np.int64)
        for step in range(STEPS):
            raw_mean, raw_index = self.networks.prior(step, context, common)
            pick = [gather(step, a, self.channels).astype(np.int64)
                    for a in (raw_mean[0], raw_index[0])]  # fmt: skip
            g, s = (gather(step, np.broadcast_to(a, y_hat.shape), self.channels)
                    for a in (gain, shift))  # fmt: skip
            mean = (pick[0] * g + (1 << (GAIN_SHIFT - 1))) >> GAIN_SHIFT
            index = (pick[1] + s + UNITS // 2) // UNITS
            index = np.clip(index, 0, self.tables.levels - 1)
            symbols = exchange(step, mean, index)
            _scatter(step, y_hat, symbols.astype(np.int64) * MEAN_UNITS + mean, self.channels)
            if step < STEPS - 1:
                u = (y_hat * inverse + (1 << (INVERSE_SHIFT - 1))) >> INVERSE_SHIFT
                np.clip(u, ACTIVATION_MIN, ACTIVATION_MAX, out=context[0, :m], casting="unsafe")
        return y_hat

    def _common(self, z: Int32) -> Float:
        """h_s of z plus the quality's vector, clipped: (1,W,h,w)."""
        h_s = self.networks.hyper_synthesis((z[None] * UNITS).astype(np.float32))
        vector = interpolate(self.tables.vector, self.quality)[None, :, None, None]
        return np.clip(h_s + vector, ACTIVATION_MIN, ACTIVATION_MAX).astype(np.float32)
