"""The search for cheaper symbols: passes through the decoder and back.

    target u, z -> symbols -> y_hat -> synthesis -> x_hat
         ^                      |                     |
         |        what later symbols cost more    what is missing in the picture
         '----------------------+---------------------'

In every pass true symbols are chosen, with the integers of the exact networks, so what a pass
costs is what its file would cost (J of `aecodec.cost`), and the best one wins. What an element's
own symbol costs is not left to a gradient: `aecodec.quantise` weighs it, as the proximal step of
a gradient descent. The rest is: the filter behind the synthesis, and the symbols that are
predicted from this one (`aecodec.foresight`).

Before the passes come looks. They leave later symbols out, and start from no symbols at all but
from a guess at which of them will be zero. The first one takes the analysis for the way back: a
tenth of the time of a pass, and much of what one of them gains. Everything is deterministic: equal
pictures give equal files, whatever the number of threads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.effort import Level
from aecodec.foresight import Foresight, Slopes
from aecodec.model import Model
from aecodec.prior import MAX_QUALITY, MEAN_UNITS, Z_LIMIT
from aecodec.quantise import STEP_WORTH, zero_reach
from aecodec.tile import Coded, Plan, code_tile, hyper_latents
from aecodec.watch import Clock
from aecodec.window import Window

Float = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Pixels = npt.NDArray[np.uint8]

# Share of the way to where the gradient points that a pass takes: less and less, for symbols chosen
# anew in the whole tile at once overshoot together.
PULL, PULL_PASSES, PULL_POWER = 0.4, 6, 0.6
# In the first look it is the way to where the analysis points: so much at quality 0, more of it at
# quality 100, and more where symbols are large, in full from a scale level on. A second look takes
# a share of that. The dead zone that guesses at zeros has a share of its strength. All are chosen
# on the validation set.
FIRST_PULL, FINER_PULL, LARGER_PULL, LARGE = 0.5, 0.3, 0.3, 32
SECOND_PULL, GUESSED = 0.5, 0.7
# Quality (hundredths) from which dead zones have their second strength, and how much more of it
# there is after looks; chosen on the validation set.
FULL_AT, SECOND = 6000, 0.24
# Share of what symbols make later ones cost that is believed, from pass to pass, and how much the
# last pass counts in it: these slopes are those of one choice of symbols, and change with it.
FORESIGHT, FORESIGHT_GROWTH, NEWEST = 0.9, 0.05, 0.5
Z_WORTH = 10.0  # bits that a squared error of one in a hyper-latent is taken to be worth
PATIENCE = 20  # passes without a better J after which a search ends


def choose(
    model: Model,
    window: Window,
    quality: int,
    grey: bool,
    level: Level,
    clock: Clock,
    turn: AbstractContextManager[object] | None = None,
) -> Coded:
    """The symbols of a tile at a level of effort; quality in hundredths.

    turn: entered while the picture of a tile is made, which takes much memory and all cores.
    """
    if not level.gradients:
        return code_tile(model, plan(model, window, quality, grey, level, turn), quality, grey)
    search = _Search(Cost(model, quality, grey), window, level)
    search.look_back(turn or nullcontext())
    for number in range(level.passes + 1):
        search.look(last=number == level.passes)
        clock.at((number + 1) / (level.passes + 1))
        if clock.out() or search.stale >= PATIENCE:
            break
    return search.best


def plan(
    model: Model,
    window: Window,
    quality: int,
    grey: bool,
    level: Level,
    turn: AbstractContextManager[object] | None = None,
) -> Plan:
    """What a level of effort without passes means to code in a tile; arguments as of `choose`."""
    if not level.by_cost:
        u = window.inner
        opening = model.at(quality, grey).opening(hyper_latents(model, u, quality))
        return Plan(u, opening, _strength(level.first, quality))
    search = _Search(Cost(model, quality, grey), window, level)
    search.look_back(turn or nullcontext())
    return search.plan()


class _Search:
    """The state of one tile's search.

    target (M,h,w), in u: what the dead zone chooses symbols from. z_target (Z,h/4,w/4): the same
    for hyper-latents.
    """

    def __init__(self, cost: Cost, window: Window, level: Level) -> None:
        self._cost, self._window, self._level = cost, window, level
        self._dead_zone = (STEP_WORTH / cost.per_step).astype(np.float32)
        self._target = window.inner
        h_a = cost.model.networks.hyper_analysis(self._target, cost.quality)
        z = rounded_z(cost.model, h_a, cost.quality, level.z_worth)
        self._open(z)
        self._z_target = z.astype(np.float32)
        self._foresight = Foresight(cost) if level.passes else None
        self._seen: Slopes | None = None
        self._least, self._passes = float("inf"), 0
        self._strength = _strength(level.first, cost.quality)
        self.best: Coded  # of the passes so far
        self.stale = 0  # passes since then

    def plan(self) -> Plan:
        """The present target."""
        strength = self._strength * self._dead_zone
        return Plan(self._target, self._opening, strength, self._cost.per_step)

    def _open(self, z: Int32) -> None:
        """Take other hyper-latents."""
        self._opening = self._cost.model.at(self._cost.quality, self._cost.grey).opening(z)

    def look_back(self, turn: AbstractContextManager[object]) -> None:
        """A target that makes up for what the filter does to the latent, in as many looks.

        They look at the latent with what will be coded as zero left out, but nothing rounded: how
        symbols round this time says little of how they round the next time.
        """
        if self._level.looks:
            self._strength += SECOND
        for number in range(self._level.looks):
            if number:  # what one look gives is kept if more of them cost more
                self.look(last=True)
            self._look_back(number, turn)

    def _look_back(self, number: int, turn: AbstractContextManager[object]) -> None:
        """One look: the first by the analysis, which overshoots less, others by gradients."""
        cost, window = self._cost, self._window
        guess, level = self._guess()
        share = FIRST_PULL + FINER_PULL * cost.quality / MAX_QUALITY
        pull = np.float32(share) + LARGER_PULL / LARGE * np.minimum(level, LARGE)
        natural = guess * cost.natural_per_u
        if number:
            pull *= SECOND_PULL
            with turn:
                missing = cost.corrected(window, natural)[1]
            guess += missing - self._target
        else:
            with turn:
                decoded = cost.decoded(window, natural)
            guess -= cost.seen(window, decoded)
        guess *= _each_of_four(pull)
        self._target = self._target + guess

    def _guess(self) -> tuple[Float, Float]:
        """What of the target (M,h,w) is not coded as zero, means elsewhere; scale levels of cells.

        Means and levels of all positions of a 2x2 cell are those of the one that is coded first.
        """
        model, opening, (m, h, w) = self._cost.model, self._opening, self._target.shape
        prior = model.at(self._cost.quality, self._cost.grey)
        mean, level = (
            prior.walk.spread(part, m).swapaxes(0, 1).reshape(m, h // 2, w // 2)
            for part in (opening.mean, opening.index)
        )
        first = _strength(self._level.first, self._cost.quality)
        strength = np.float32(GUESSED * first) * self._dead_zone[:, None, None]
        reach = zero_reach(level.astype(np.uint8), model.shifts, strength)
        per_u = prior.steps_per_u().astype(np.float32)[:, None, None]
        means = _each_of_four(mean / (MEAN_UNITS * per_u))
        far = np.abs(self._target - means) > _each_of_four(reach / per_u)
        np.copyto(means, self._target, where=far)
        return means, level

    def look(self, last: bool) -> None:
        """One pass: symbols, their cost, and unless it is the last one a better target."""
        cost, window = self._cost, self._window
        coded = code_tile(cost.model, self.plan(), cost.quality, cost.grey)
        if last:
            decoded = cost.decoded(window, coded.y_hat)
        else:
            decoded, missing = cost.corrected(window, coded.y_hat)
        self._compare(coded, decoded)
        if not last:
            self._move(coded, missing)
            self._passes += 1
            self._strength = _strength(self._level.later, cost.quality)

    def _compare(self, coded: Coded, decoded: Pixels) -> None:
        """Keep the symbols if they cost less than all before."""
        total = self._cost.total(self._window, coded, decoded)
        self.stale += 1
        if total < self._least:
            self._least, self.best, self.stale = total, coded, 0

    def _move(self, coded: Coded, missing: Float) -> None:
        """Set the targets of the next pass."""
        cost, per_u = self._cost, self._cost.natural_per_u
        pull = PULL / (1 + self._passes / PULL_PASSES) ** PULL_POWER
        slopes = self._slopes(coded)
        dearer = slopes.y / 2 / cost.per_step[:, None, None]
        u_per_step = cost.model.networks.inverse_gain(cost.quality) / per_u
        better = coded.y_hat / per_u + missing - dearer * u_per_step
        self._target = self._target + pull * (better - self._target)
        z = coded.z - slopes.z / 2 / Z_WORTH
        self._z_target += pull * (z - self._z_target)
        self._open(rounded_z(cost.model, self._z_target, cost.quality, Z_WORTH))

    def _slopes(self, coded: Coded) -> Slopes:
        """What is believed of the slopes of later symbols' bits."""
        assert self._foresight is not None
        found, before = self._foresight.slopes(coded), self._seen
        if before is not None:
            y, z = (
                NEWEST * new + (1 - NEWEST) * old
                for new, old in ((found.y, before.y), (found.z, before.z))
            )
            found = Slopes(y, z)
        self._seen = found
        share = min(1.0, FORESIGHT + FORESIGHT_GROWTH * self._passes)
        return Slopes(share * found.y, share * found.z)


def _each_of_four(cells: Float) -> Float:
    """(M,h/2,w/2), of cells of 2x2, for all their positions: (M,h,w)."""
    return cells.repeat(2, axis=1).repeat(2, axis=2)


def _strength(ends: tuple[float, float], quality: int) -> float:
    """That of a dead zone: see `aecodec.effort.Level`."""
    return float(np.interp(quality, (0, FULL_AT), ends))


def rounded_z(model: Model, z: Float, quality: int, worth: float) -> Int32:
    """Hyper-latents (Z,h,w) as integers: near to z, and cheap by the frozen tables.

    worth: bits that a squared error of one is taken to cost.
    """
    z, values = np.nan_to_num(z), np.arange(-Z_LIMIT, Z_LIMIT + 1)
    near = np.clip(np.rint(z), -Z_LIMIT, Z_LIMIT).astype(np.int32)
    distance = z[..., None].astype(np.float64) - values
    cost = model.hyper.costs(near, quality) + worth * distance**2
    cheapest: Int32 = (np.argmin(cost, -1) - Z_LIMIT).astype(np.int32)
    return cheapest
