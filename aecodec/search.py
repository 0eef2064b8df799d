"""The search for cheaper symbols: passes through the decoder, without gradients.

    target u -> symbols -> y_hat -> synthesis -> x_hat -> analysis -> what is still missing
       ^------------------------------------------------------------------'

The synthesis has a filter behind it and is not the exact inverse of the analysis: a pass moves
the target by what the last one left, and the best pass wins (`aecodec.cost`). Everything is
deterministic: equal pictures give equal files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.effort import Level
from aecodec.model import Model
from aecodec.prior import Z_LIMIT
from aecodec.quantise import STEP_WORTH
from aecodec.tile import Coded, Plan, code_tile, hyper_latents
from aecodec.watch import Clock
from aecodec.window import Window

Float = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Candidate:
    """A tile's plan, the symbols that follow from it, and their J."""

    plan: Plan
    coded: Coded
    cost: float


def choose(
    model: Model, window: Window, quality: int, grey: bool, level: Level, clock: Clock
) -> Coded:
    """The symbols of a tile at a level of effort; quality in hundredths.

    Raises AecError when the level needs PyTorch and it cannot be used.
    """
    if not level.by_cost:
        u = window.inner
        plan = Plan(u, hyper_latents(model, u, quality), level.first)
        return code_tile(model, plan, quality, grey)
    best = corrected(Cost(model, quality, grey), window, level, clock)
    if level.steps:
        from aecodec import refine

        best = refine.refined(Cost(model, quality, grey), window, best, level, clock)
    return best.coded


def corrected(cost: Cost, window: Window, level: Level, clock: Clock) -> Candidate:
    """The best of `level.passes` + 1 passes."""
    model, quality = cost.model, cost.quality
    u = window.inner
    h_a = model.networks.hyper_analysis(u, quality)
    target, z = u, rounded_z(model, h_a, quality, level.z_worth)
    dead_zone = (STEP_WORTH / cost.per_step).astype(np.float32)
    best: Candidate | None = None
    for number in range(level.passes + 1):
        strength = level.strength if number else level.first
        plan = Plan(target, z, strength * dead_zone)
        coded = code_tile(model, plan, quality, cost.grey)
        if not level.passes:
            return Candidate(plan, coded, 0.0)
        decoded = cost.decoded(window, coded.y_hat)
        total = cost.total(window, coded, decoded)
        if best is None or total < best.cost:
            best = Candidate(plan, coded, total)
        if not level.steps:  # which would begin at 0 again
            clock.at((number + 1) / (level.passes + 1))
        if number == level.passes or clock.out():
            break
        u_hat = coded.y_hat / cost.natural_per_u
        missing = window.u - model.networks.analysis(decoded, quality)
        target = u_hat + missing[:, window.rows, window.columns]
    assert best is not None
    return best


def rounded_z(model: Model, z: Float, quality: int, worth: float) -> Int32:
    """Hyper-latents (Z,h,w) as integers: near to z, and cheap by the frozen tables.

    worth: bits that a squared error of one is taken to cost.
    """
    channels = model.z_index((len(z), 1, 1), quality)
    values = np.arange(-Z_LIMIT, Z_LIMIT + 1)
    starts = model.z_tables.starts[channels]
    counts = model.z_tables.frequencies[starts[:, None] + np.arange(len(values))]
    bits = -np.log2(counts.astype(np.float64))[:, None, None]
    distance = np.nan_to_num(z)[..., None].astype(np.float64) - values
    cheapest: Int32 = (np.argmin(bits + worth * distance**2, -1) - Z_LIMIT).astype(np.int32)
    return cheapest
