"""Gradient search of a tile's symbols through decoder and prior (levels 7 to 9; PyTorch).

    target u, z -> symbols -> bits of y and z
                      '-> y_hat -> synthesis -> squared error
    gradients of J = bits + weight * squared error with respect to y_hat and z
        -> a better target, a share of the way -> symbols -> ...

Every iteration chooses true symbols with the integers of the exact networks, so its J is what
the file will cost, and the best iteration is kept. What an element's own symbol costs is not
left to a gradient: `aecodec.quantise` weighs it, as the proximal step of a gradient descent. The
rest (the filter behind the synthesis, the symbols that are predicted from this one) comes from
the gradient. The search hands over y_hat as the target of plain rounding: the exact integer
path writes the file, and every decoder reads it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.effort import Level
from aecodec.errors import AecError
from aecodec.prior import (
    ACTIVATION_MAX,
    ACTIVATION_MIN,
    INDEX_BITS,
    MEAN_UNITS,
    STEPS,
    UNITS,
)
from aecodec.search import Candidate
from aecodec.search_networks import Distortion, SearchNetworks, Tables, gather, scatter
from aecodec.tile import Plan, code_tile
from aecodec.watch import Clock
from aecodec.weights import Weights
from aecodec.window import Window

Float = npt.NDArray[np.float32]
Tensor = Any  # torch.Tensor, which is not imported here

# Share of the way to where the gradient points that is taken: PULL at first, then less and less,
# for symbols chosen anew in the whole tile at once overshoot together.
PULL, PULL_STEPS, PULL_POWER = 0.7, 6, 0.8
Z_WORTH = 10.0  # bits that a squared error of one in a hyper-latent is taken to be worth
PATIENCE = 20  # iterations without a better J after which a search ends


def refined(cost: Cost, window: Window, start: Candidate, level: Level, clock: Clock) -> Candidate:
    """The best of `level.steps` iterations from `start`, or `start` itself.

    Raises AecError when PyTorch cannot be loaded.
    """
    networks = _networks(cost)
    search = _Search(networks, cost, window, start)
    with _threads(networks.torch, cost.model.networks.threads):
        for number in range(level.steps):
            search.iterate()
            clock.at((number + 1) / level.steps)
            if clock.out() or search.stale >= PATIENCE:
                break
    y_hat, z = search.best()
    steps = cost.model.at(cost.quality, cost.grey).steps_per_u().astype(np.float32)
    plan = Plan(y_hat / steps[:, None, None], z, strength=0.0)
    coded = code_tile(cost.model, plan, cost.quality, cost.grey)
    total = cost.total(window, coded, cost.decoded(window, coded.y_hat))
    return Candidate(plan, coded, total) if total < start.cost else start


@contextlib.contextmanager
def _threads(torch: Any, count: int) -> Iterator[None]:
    """PyTorch on so many threads, and then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _networks(cost: Cost) -> SearchNetworks:
    try:
        return _opened(cost.model.weights.folder, cost.model.networks.device)
    except (ImportError, OSError) as error:
        raise AecError(f"this effort needs PyTorch, which does not load: {error}") from error


@functools.lru_cache(maxsize=2)
def _opened(folder: Path, device: str) -> SearchNetworks:
    return SearchNetworks(folder, Weights(folder).tensors("vectors"), device)


class _Search:
    """The state of one tile's search: latents (1,M,h,w) in steps, z (1,Z,h/4,w/4)."""

    def __init__(
        self, networks: SearchNetworks, cost: Cost, window: Window, start: Candidate
    ) -> None:
        self._networks, self._torch = networks, networks.torch
        self._tables, self._distortion = Tables(networks, cost), Distortion(networks, cost, window)
        steps = cost.model.at(cost.quality, cost.grey).steps_per_u()[:, None, None]
        self._target = networks.tensor(start.plan.u * steps)[None]
        self._z_target = networks.tensor(start.plan.z)[None]
        self._weight, self._quality = cost.weight, cost.quality
        self._prior, self._released = cost.model.prior, cost.model.networks
        self._per_step = networks.tensor(cost.per_step[None, :, None, None])
        self._least, self._best = float("inf"), (self._target, self._z_target)
        self.stale, self._number = 0, 0

    def best(self) -> tuple[Float, npt.NDArray[np.int32]]:
        """y_hat (M,h,w) in steps and z (Z,h/4,w/4) of the best iteration."""
        y_hat, z = (tensor[0].cpu().numpy() for tensor in self._best)
        return y_hat, z.astype(np.int32)

    def iterate(self) -> None:
        """Choose symbols, see what they cost, and move the targets."""
        z = self._tables.nearest_z(self._z_target, Z_WORTH).requires_grad_()
        change = self._torch.zeros_like(self._target).requires_grad_()
        y_hat, bits = self._walk(z, change)
        bits.backward()
        error, by_error = self._distortion(y_hat)
        total = float(bits.detach()) + self._tables.bits_of_z(z) + self._weight * error
        self.stale += 1
        if total < self._least:
            self._least, self._best, self.stale = total, (y_hat, z.detach()), 0
        slope = change.grad + self._weight * by_error
        pull = PULL / (1 + self._number / PULL_STEPS) ** PULL_POWER
        self._number += 1
        self._target += pull * (y_hat - slope / (2 * self._per_step) - self._target)
        self._z_target += pull * (z.detach() - z.grad / (2 * Z_WORTH) - self._z_target)

    def _walk(self, z: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """y_hat of the four steps, and its bits, to be differentiated by z and `change`.

        Mirrors `aecodec.prior.Prior.run`; `change` is 0 and is added to what later steps see.
        """
        torch, tables = self._torch, self._tables
        m, h, w = self._target.shape[1:]
        common = self._networks.common(z, tables.vector)
        context = self._target.new_zeros(1, m + 4, h, w)
        for phase in range(4):
            context[0, m + phase, phase // 2 :: 2, phase % 2 :: 2] = UNITS
        y_hat, bits = torch.zeros_like(self._target), 0.0
        for step in range(STEPS):
            raw_mean, raw_index = self._networks.parameters(step, context, common)
            if step in self._prior.offsets:
                raw_mean = self._better(step, context.detach(), raw_mean)
            mean = torch.floor(raw_mean.double() * tables.gain + 0.5) / MEAN_UNITS
            index = (raw_index + tables.shift) / (1 << INDEX_BITS)
            level = tables.level(index.detach())
            residual = gather(torch, self._target, step) - mean.detach()
            symbols = tables.quantise(residual, level)
            bits = bits + tables.bits(symbols, level, mean.detach() - mean, index)
            values = (symbols + mean.detach()) * tables.coded
            scatter(y_hat, step, values)
            if step < STEPS - 1:
                u = (values + gather(torch, change, step)) * tables.inverse
                u = torch.floor(u + 0.5).clamp(ACTIVATION_MIN, ACTIVATION_MAX) * tables.coded
                context = context.clone()
                scatter(context[:, :m], step, u)
        return y_hat, bits

    def _better(self, step: int, context: Tensor, raw_mean: Tensor) -> Tensor:
        """Raw means after the predictor; gradients are those of the means before it.

        Gradients through it would save 0.2 % more for a quarter more of the time, so that the
        released network can be asked, which is faster.
        """
        known, mean = context.cpu().numpy(), raw_mean.detach().cpu().numpy()
        offset = self._prior.offset(step, self._quality)
        found = self._released.predictor(step, known, mean, offset)
        return raw_mean + (self._networks.tensor(found) - raw_mean).detach()
