"""The exact integer probability model: decoded symbols so far -> (mean, scale index).

Everything here is integer arithmetic, and the two networks it asks (h_s and the prior) give
integers, whatever runtime computes them: see docs/determinism.md. So encoder and decoder,
on any machine, agree on every table index and every mean.

In some steps the predictor improves the means: it sees the picture that the symbols so far make.

Fixed point: y_hat and means are in 1/16 of a quantisation step; network inputs in 1/64 of
u = y / s; network means in 1/256 of u; scale indices in 1/64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)

# (step, quarter) -> phase: at each step every channel quarter is coded at another position
# of the 2x2 cells, so every step knows something about every position.
STEP_PHASES = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
STEPS = len(STEP_PHASES)
MEAN_UNITS = 16  # of y_hat and means, per quantisation step
UNITS, INDEX_BITS = 64, 6  # of network activations and scale indices
MEAN_BITS = 2  # from a network's means, in 1/256 of u, to activations
ACTIVATION_MIN, ACTIVATION_MAX = -16 * UNITS, 16 * UNITS - 1
GAIN_SHIFT, INVERSE_SHIFT = 20, 16  # fixed point of the gain tables
PICTURE_MIN, PICTURE_MAX = -2048, 2047  # a picture so far is in 1/8 of a level around 128
PICTURE_UNITS = 512  # of these make the 64 levels in which the predictor's convolutions work
LAP_BITS = 10  # binary places of the lapped filter's integers
Z_LIMIT = 15  # hyper-latents are clipped to -15..15
QUALITY_STEP = 200  # quality tables hold a row every 2.00
MAX_QUALITY = 10000  # hundredths

# Called once per step with means (n,) in 1/16 and scale indices (n,); gives the symbols (n,).
Exchange = Callable[[int, Int64, Index], Int32]


class ExactNetworks(Protocol):
    """What the model needs from a runtime; all values are integers held in float32."""

    def hyper_synthesis(self, z: Float) -> Float:
        """(1,Z,h/4,w/4) in 1/64 -> (1,W,h,w) in 1/64, not yet clipped."""

    def prior(self, step: int, context: Float, common: Float) -> tuple[Float, Float]:
        """context (1,M+4,h,w), common (1,W,h,w) -> means, scale indices (4,M/4,h/2 * w/2).

        Only of the elements that the step codes, in coding order of all channels.
        """

    def predictor(self, step: int, latent: Float, mean: Float, offset: Int32) -> Float:
        """latent (1,M,h,w) of `with_means`, means (4,M/4,n), offset (C,) -> better means."""


@dataclass(frozen=True)
class PriorTables:
    """Frozen integer tables of one model; rows stand every QUALITY_STEP of quality.

    gain (R,M): 1/16 steps per 1/256 of u, times 2^20; inverse (R,M): 1/64 of u per 1/16 step,
    times 2^16; shift (R,M): what the quality adds to the scale index, in 1/64; vector (R,W):
    what it adds to h_s, in 1/64. offsets (R,C): what it adds to the predictor's first bias, for
    each step that has a predictor. luma (M,): channels that a grey picture uses.
    levels: scale tables, of which index 0 is the certain zero.
    """

    gain: Int64
    inverse: Int64
    shift: Int64
    vector: Int64
    luma: npt.NDArray[np.bool_]
    levels: int
    offsets: Mapping[int, Int64]

    def offset(self, step: int, quality: int) -> Int32:
        """(C,): the row of a step's offsets at a quality in hundredths."""
        return interpolate(self.offsets[step], quality).astype(np.int32)


def interpolate(table: Int64, quality: int) -> Int64:
    """Row of a quality table at a quality in hundredths: linear, in integers, half up."""
    i = min(quality // QUALITY_STEP, len(table) - 2)
    f = quality - i * QUALITY_STEP
    total: Int64 = table[i] * (QUALITY_STEP - f) + table[i + 1] * f + QUALITY_STEP // 2
    return total // QUALITY_STEP


@dataclass(frozen=True)
class Walk:
    """Which elements of (M,h,w) each step codes, in coding order.

    Quarters one after the other; in each, channels (all, or those in `channels`), then rows,
    then columns of the phase.
    """

    channels: Int64 | None

    def views(self, step: int, array: npt.NDArray[T]) -> list[npt.NDArray[T]]:
        """One strided view per quarter, (channels, h/2, w/2); a copy if channels are left out."""
        views = []
        for quarter, phase in enumerate(STEP_PHASES[step]):
            view = array[quarter::4, phase // 2 :: 2, phase % 2 :: 2]
            views.append(view if self.channels is None else view[self._rows(quarter)])
        return views

    def gather(self, step: int, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """The step's elements of (M,h,w) as (n,)."""
        return np.concatenate([view.ravel() for view in self.views(step, array)])

    def kept(self, quarters: npt.NDArray[T]) -> npt.NDArray[T]:
        """Rows (channels to code, h/2 * w/2) of (4,M/4,h/2 * w/2), which has every channel."""
        if self.channels is None:
            return quarters.reshape(-1, quarters.shape[2])
        return np.concatenate([quarters[q][self._rows(q)] for q in range(4)])

    def spread(self, kept: npt.NDArray[Any], channels: int) -> Float:
        """Back from `kept`: (4,channels/4,h/2 * w/2), 0 in channels that are not coded."""
        out = np.zeros((4, channels // 4, kept.shape[1]), np.float32)
        start = 0
        for quarter in range(4):
            rows = slice(None) if self.channels is None else self._rows(quarter)
            count = len(out[quarter][rows])
            out[quarter][rows] = kept[start : start + count]
            start += count
        return out

    def rows(self, row: npt.NDArray[T]) -> npt.NDArray[T]:
        """Per-channel values (M,) for the rows of `kept`, as a column."""
        if self.channels is None:
            return row.reshape(-1, 4).T.reshape(-1, 1)
        column: npt.NDArray[T] = np.concatenate([row[q::4][self._rows(q)] for q in range(4)])
        return column[:, None]

    def per_element(self, step: int, row: npt.NDArray[T], h: int, w: int) -> npt.NDArray[T]:
        """Per-channel values (M,) repeated for the step's elements (n,)."""
        kept = [
            row[quarter::4] if self.channels is None else row[quarter::4][self._rows(quarter)]
            for quarter in range(4)
        ]
        return np.repeat(np.concatenate(kept), h * w // 4)

    def scatter(self, step: int, array: npt.NDArray[T], values: npt.NDArray[Any]) -> None:
        """Put (n,) values where `gather` took them from."""
        start = 0
        for quarter, phase in enumerate(STEP_PHASES[step]):
            target = array[quarter::4, phase // 2 :: 2, phase % 2 :: 2]
            rows = slice(None) if self.channels is None else self._rows(quarter)
            count = len(target) if self.channels is None else len(self._rows(quarter))
            size = count * target.shape[1] * target.shape[2]
            part = values[start : start + size]
            target[rows] = part.reshape(count, *target.shape[1:])
            start += size

    def _rows(self, quarter: int) -> Int64:
        assert self.channels is not None
        rows: Int64 = self.channels[self.channels % 4 == quarter] // 4
        return rows


def with_means(step: int, context: Float, mean: Float) -> Float:
    """What a step's predictor sees: the latent so far, with the step's means where it codes.

    context (1,M+4,h,w), means (4,M/4,h/2 * w/2) in 1/256 of u -> (1,M,h,w) in 1/64 of u.
    """
    latent = context[:, :-4].copy()
    near = mean * np.float32(1 / (1 << MEAN_BITS))
    near += np.float32(0.5)
    np.floor(near, out=near)
    np.clip(near, ACTIVATION_MIN, ACTIVATION_MAX, out=near)
    Walk(None).scatter(step, latent[0], near.ravel())
    return latent


@dataclass(frozen=True)
class Opening:
    """What follows from the hyper-latents z (Z,h/4,w/4) alone, before any symbol.

    common (1,W,h,w): see `Prior.common`. mean, index (channels, h/2 * w/2): of the first step.
    """

    z: Int32
    common: Float
    mean: Int64
    index: Index


@dataclass(frozen=True)
class Prior:
    """The model at one quality (hundredths), for colour or grey pictures."""

    tables: PriorTables
    networks: ExactNetworks
    quality: int
    grey: bool

    @property
    def walk(self) -> Walk:
        """The coding order: every channel, or for grey pictures only the luma channels."""
        return Walk(np.flatnonzero(self.tables.luma) if self.grey else None)

    def steps_per_u(self) -> npt.NDArray[np.float64]:
        """(M,) quantisation steps per unit of u: the encoder scales with it."""
        row = interpolate(self.tables.gain, self.quality)
        return row * (256 / MEAN_UNITS / 2.0**GAIN_SHIFT)

    def opening(self, z: Int32) -> Opening:
        """The first step's parameters: an encoder that runs twice on one z needs them once."""
        common = self.common(z)
        context = self.empty_context(z.shape[1] * 4, z.shape[2] * 4)
        return Opening(z, common, *self._asked(0, context, common))

    def run(self, opening: Opening, exchange: Exchange) -> Int32:
        """Walk through the four steps; the same walk encodes and decodes.

        opening: of the decoded hyper-latents. exchange(step, means, indices) is asked for the
        symbols of each step. Returns y_hat (M,h,w) in 1/16 of a step.
        """
        m, walk, common = len(self.tables.luma), self.walk, opening.common
        h, w = common.shape[2:]
        context = self.empty_context(h, w)
        y_hat = np.zeros((m, h, w), np.int32)
        inverse = walk.rows(self._row("inverse"))
        for step in range(STEPS):
            mean, index = opening.mean, opening.index
            if step > 0:
                mean, index = self._asked(step, context, common)
            values = exchange(step, mean.ravel(), index.ravel()).astype(np.int64)
            values *= MEAN_UNITS
            values += mean.ravel()
            walk.scatter(step, y_hat, values)
            if step < STEPS - 1:
                u = values.reshape(mean.shape) * inverse
                u += 1 << (INVERSE_SHIFT - 1)
                u >>= INVERSE_SHIFT
                np.clip(u, ACTIVATION_MIN, ACTIVATION_MAX, out=u)
                walk.scatter(step, context[0, :m], u.ravel())
        return y_hat

    def _asked(self, step: int, context: Float, common: Float) -> tuple[Int64, Index]:
        """Means in 1/16 of a step and table indices, (channels, n), as the networks have them."""
        raw_mean, raw_index = self.networks.prior(step, context, common)
        if step in self.tables.offsets:
            offset = self.tables.offset(step, self.quality)
            latent = with_means(step, context, raw_mean)
            raw_mean = self.networks.predictor(step, latent, raw_mean, offset)
        return self._parameters(raw_mean, raw_index)

    def _row(self, name: str) -> Int64:
        row: Int64 = interpolate(getattr(self.tables, name), self.quality)
        return row

    def _parameters(self, raw_mean: Float, raw_index: Float) -> tuple[Int64, Index]:
        """The same from a step's integers."""
        walk = self.walk
        mean = walk.kept(raw_mean).astype(np.int64)
        mean *= walk.rows(self._row("gain"))
        mean += 1 << (GAIN_SHIFT - 1)
        mean >>= GAIN_SHIFT
        index = walk.kept(raw_index).astype(np.int32)
        index += walk.rows(self._row("shift").astype(np.int32)) + UNITS // 2
        index >>= INDEX_BITS
        np.clip(index, 0, self.tables.levels - 1, out=index)
        return mean, index.astype(np.uint8)

    def common(self, z: Int32) -> Float:
        """h_s of z plus the quality's vector, clipped: (1,W,h,w)."""
        h_s = self.networks.hyper_synthesis((z[None] * UNITS).astype(np.float32))
        # Exact: sums of whole numbers below 2^24. With a row of int64 it would be float64.
        common = h_s + self._row("vector").astype(np.float32)[:, None, None]
        return np.clip(common, ACTIVATION_MIN, ACTIVATION_MAX, out=common)

    def empty_context(self, h: int, w: int) -> Float:
        """(1,M+4,h,w): what the prior sees before the first step."""
        m = len(self.tables.luma)
        context = np.zeros((1, m + 4, h, w), np.float32)
        for phase in range(4):  # where each position stands in its 2x2 cell
            context[0, m + phase, phase // 2 :: 2, phase % 2 :: 2] = UNITS
        return context
