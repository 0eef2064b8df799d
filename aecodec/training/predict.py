"""Train the predictor alone: `python -m aecodec.training.predict --config FILE`.

A pool of crops is coded once, as the released encoder codes them without a predictor, and the
predictor learns to take bits off the residuals of its steps: linear path, prior and tables stay as
they are. The run resumes from its `last.ckpt`; then `aecodec.training.join` counts symbols anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from safetensors import safe_open
from torch import Tensor

from aecodec.training.config import TrainConfig
from aecodec.training.data import Pixels, open_tiles
from aecodec.training.eight import Point, choose, points
from aecodec.training.layers import GRID
from aecodec.training.model import Codec
from aecodec.training.part import PartRun, batches, crops, part_arguments, part_options
from aecodec.training.predictor import MEAN_GRID, SEEN, Predictor
from aecodec.training.quarters import put, take
from aecodec.training.symbols import SCALE_LEVELS

PARTS = "predictor.nets."
LEAST_COST = 300.0  # bits that every crop counts as having besides its own
FINEST = -9  # power of two: 1/8 of 64 levels
WATCHED = 24  # batches from which 8-bit scales are chosen


class Pool(NamedTuple):
    """Coded crops; tensors (N,M,h,w) unless said.

    u: u_hat in 1/64, as contexts have it; mean: of the prior alone, in 1/256 of u; both int16.
    residual: of it, in steps, float16. index: scale indices, uint8. coded (N,M): whether a
    channel is, of grey pictures. quality (N,).
    """

    u: Tensor
    mean: Tensor
    residual: Tensor
    index: Tensor
    coded: Tensor
    quality: Tensor


@torch.no_grad()
def code_pool(model: Codec, tiles: Pixels, cfg: TrainConfig, count: int) -> Pool:
    """`count` crops at qualities spread evenly, coded by `model` without its predictor."""
    model.eval()
    model.hard, predictor, model.predictor = True, model.predictor, None
    device, parts = model.s.device, []
    for x, quality, grey in crops(tiles, cfg, [cfg.seed, 6], count):
        parts.append(_coded(model, x.to(device), quality.to(device), grey.to(device)))
    model.predictor = predictor
    return Pool(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _coded(model: Codec, x: Tensor, quality: Tensor, grey: Tensor) -> Pool:
    """One batch of the pool."""
    seen: list[tuple[Tensor, ...]] = []
    model.watcher = lambda *step: seen.append(step)
    y_hat = model.coded_latent(x, quality, grey)
    model.watcher = None
    u = model.seen(y_hat, quality)
    planes = [torch.zeros_like(y_hat) for _ in range(3)]
    for step, values in enumerate(seen):
        planes = [put(p, value, step) for p, value in zip(planes, values, strict=True)]
    mean, residual, index = planes
    coded = torch.where(grey[:, None], model.grey_mask, 1.0)
    index = index.clamp(0, SCALE_LEVELS - 1)  # as the tables are: also below the certain zero
    return Pool(
        u.to(torch.int16).cpu(),
        torch.round(mean * MEAN_GRID).to(torch.int16).cpu(),
        residual.half().cpu(),
        index.to(torch.uint8).cpu(),
        coded.bool().cpu(),
        quality.cpu(),
    )


def cost(model: Codec, batch: Pool, step: int) -> Tensor:
    """Mean over crops of how much more the step's residuals cost than before, as a share of it."""
    assert model.predictor is not None
    device = model.s.device
    known, whole = _known(batch, step), batch.u.to(device).float() / GRID
    quality = batch.quality.to(device)
    mean = take(batch.mean.to(device).float() / MEAN_GRID, step)
    found = model.predictor(step, whole * known.to(device), mean, quality)
    steps = torch.exp(model.log_gain(quality)) * model.s[None, :, None, None]
    residual = take(batch.residual.to(device).float(), step)
    index = take(batch.index.to(device).float(), step)
    counted = (index > 0) * take(batch.coded.to(device).float()[..., None, None], step)
    now, before = (
        (model.symbols.smooth_cost(r, index) * counted).sum((0, 2, 3, 4))
        for r in (residual - found * take(steps, step), residual)
    )
    return ((now - before) / (before + LEAST_COST)).mean()


def _known(batch: Pool, step: int) -> Tensor:
    """(1,M,h,w): 1 where an earlier step has coded an element."""
    one = torch.ones(1, *batch.u.shape[1:])
    known = torch.zeros_like(one)
    for earlier in range(step):
        known = put(known, take(one, earlier), earlier)
    return known


@torch.no_grad()
def choose_scales(predictor: Predictor, model: Codec, pool: Iterator[Pool]) -> None:
    """Put the inner convolutions into 8 bits: scales from what activations are on the pool."""
    seen = points(predictor)
    for point in seen:
        point.scale.zero_()
        point.seen = []
    for _, batch in zip(range(WATCHED), pool, strict=False):
        for step in predictor.steps:
            cost(model, batch, step)
    done: list[Point] = []
    for step in predictor.steps:
        net = predictor.net(step)
        choose(net.stream(), FINEST)
        choose([net.last.point], FINEST)  # whole numbers of 1/8 of a level, or coarser
        net.seen.scale.fill_(SEEN)
        done += [*net.stream(), net.last.point, net.seen]
    for point in seen:
        if point not in done:
            choose([point], FINEST)
        point.seen = None


def open_run(cfg: TrainConfig, device: torch.device) -> PartRun:
    """The run in `cfg.out`, new or as it was left. Raises ValueError without a predictor."""
    if not cfg.model.predictor_steps:
        raise ValueError("the configuration has no predictor_steps")
    with safe_open(cfg.start_from, "pt") as start:
        known = any(name.startswith("predictor.") for name in start.keys())  # noqa: SIM118

    def prepare(model: Codec) -> None:
        assert model.predictor is not None
        model.follow_linear_path()
        if not known:
            bands = list(model.filter)
            model.predictor.start_from(bands[(len(bands) - 1) // 2])

    state = PartRun(cfg, device, lambda name: name.startswith(PARTS), prepare)
    assert state.model.predictor is not None
    state.model.predictor.to(memory_format=torch.channels_last)
    state.model.set_quantised(True)
    return state


def run(cfg: TrainConfig, count: int, device: torch.device) -> None:
    """Train until the last step or the time limit."""
    state = open_run(cfg, device)
    model, predictor = state.model, state.model.predictor
    assert predictor is not None
    pool = code_pool(model, open_tiles(Path(cfg.data), Path(cfg.cache)), cfg, count)
    if cfg.eight_bit_predictor and not predictor.net(predictor.steps[0]).seen.scale:
        choose_scales(predictor, model, batches(pool, cfg, 0))

    def loss(model: Codec, batch: Pool) -> Tensor:
        return cost(model, batch, predictor.steps[state.step % len(predictor.steps)])

    state.train(loss, batches(pool, cfg, state.step))


@click.command()
@part_options
def main(**options: Any) -> None:
    """Train the predictor on coded latents."""
    run(*part_arguments(**options))


if __name__ == "__main__":
    main()
