"""Adapt the prior to a predictor: `python -m aecodec.training.adapt --config FILE`.

With a predictor the residuals of the last coding step are smaller than the prior has learned to
expect. Here the prior's own part of that step, and the predictor with it, learn on: from a pool of
crops that are coded once, for no later step depends on the last one. Crops are coded by the network
that is trained, with one choice of symbols, or by released weights with all that the default effort
does. Everything is in the arithmetic of the released file. The run resumes from its `last.ckpt`;
then `aecodec.training.join` counts symbols anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from aecodec.training.config import TrainConfig
from aecodec.training.data import Pixels, open_tiles
from aecodec.training.layers import GRID
from aecodec.training.model import Codec
from aecodec.training.part import PartRun, batches, crops, part_arguments, part_options
from aecodec.training.planned import Planned, planned
from aecodec.training.quarters import put, take
from aecodec.training.symbols import SCALE_LEVELS

STEP = 3  # the last one
ALIKE = 5.0  # of quality: crops so near to one another are compared in what they cost


class Pool(NamedTuple):
    """Coded crops; tensors (N,...).

    context (N,M,h,w): u_hat of earlier steps in 1/64, int16. common (N,W,h,w): in 1/64, int16.
    target (N,4,M/4,h/2,w/2): the step's part of the latent in quantisation steps, as `take` cuts
    it. strength (N,M): of the dead zone. coded (N,M): whether a channel is, of grey pictures.
    quality (N,). before (N,): bits that the step's symbols cost. typical (N,): the mean of that
    for crops of about this quality.
    """

    context: Tensor
    common: Tensor
    target: Tensor
    strength: Tensor
    coded: Tensor
    quality: Tensor
    before: Tensor
    typical: Tensor


@torch.no_grad()
def code_pool(model: Codec, tiles: Pixels, cfg: TrainConfig, count: int, encoder: str = "") -> Pool:
    """`count` crops at qualities spread evenly, coded with real symbols.

    encoder: name or id of released weights that code them, "" for `model`. They must be those that
    the model started from, or their earlier steps say something else.
    """
    model.eval()
    model.hard = True
    parts = [
        _coded(model, planned(model, encoder, x, quality, grey), quality, grey)
        for x, quality, grey in crops(tiles, cfg, [cfg.seed, 10], count)
    ]
    pool = Pool(*(torch.cat(column) for column in zip(*parts, strict=True)))
    alike = (pool.quality[:, None] - pool.quality).abs() <= ALIKE
    return pool._replace(typical=(alike * pool.before).sum(1) / alike.sum(1))


def _coded(model: Codec, found: Planned, quality: Tensor, grey: Tensor) -> Pool:
    """One batch of the pool, not yet compared with others."""
    device = model.s.device
    quality, grey = quality.to(device), grey.to(device)
    u = model.seen(found.y_hat, quality)
    context = put(u, torch.zeros_like(take(u, STEP)), STEP)
    common = torch.round(model.common(found.z, quality) * GRID)
    coded = torch.where(grey[:, None], model.grey_mask, 1.0).bool()
    pool = Pool(
        context.to(torch.int16), common.to(torch.int16), take(found.y, STEP).transpose(0, 1),
        found.strength, coded, quality, *torch.zeros(2, len(quality)),
    )  # fmt: skip
    return Pool(*(column.cpu() for column in pool._replace(before=bits(model, pool))))


def bits(model: Codec, batch: Pool) -> Tensor:
    """(B,): what the step's symbols cost.

    The gradient moves scale indices by the bits of symbols, and means by what residuals cost.
    """
    device = model.s.device
    context, common = (a.to(device).float() / GRID for a in (batch.context, batch.common))
    quality = batch.quality.to(device)
    mean, index = model.expect(STEP, context, common, quality)
    mean, index = model.rounded(mean * take(model.steps_per_u(quality), STEP), index)
    coded, strength = (
        take(column.to(device).float()[..., None, None], STEP)
        for column in (batch.coded, batch.strength)
    )
    r = (batch.target.to(device).transpose(0, 1) - mean) * coded
    k = model.symbols.choose(r, index, strength)
    cost = model.symbols.bits(k, index)
    level = index.detach().round().clamp(0.0, SCALE_LEVELS - 1.0)
    pull = model.symbols.smooth_cost(r, level)
    return ((cost + pull - pull.detach()) * coded).sum((0, 2, 3, 4))


def loss(model: Codec, batch: Pool) -> Tensor:
    """Mean over crops of how much more the step costs than before, as a share of what it typically
    costs at their quality: crops that cost much count for more, qualities that do not.
    """
    before, typical = batch.before.to(model.s.device), batch.typical.to(model.s.device)
    return ((bits(model, batch) - before) / typical).mean()


def open_run(cfg: TrainConfig, device: torch.device) -> PartRun:
    """The run in `cfg.out`, new or as it was left. Raises ValueError for other predictors."""
    if STEP not in cfg.model.predictor_steps:
        raise ValueError("the configuration has no predictor in the last coding step")
    own = (f"prior.enter.{STEP}.", f"predictor.nets.{STEP}.")
    state = PartRun(cfg, device, lambda name: name.startswith(own))
    state.model.set_quantised(True)
    return state


def run(cfg: TrainConfig, count: int, device: torch.device, encoder: str = "") -> None:
    """Train until the last step or the time limit; encoder: see `code_pool`."""
    state = open_run(cfg, device)
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    pool = code_pool(state.model, tiles, cfg, count, encoder)
    state.train(loss, batches(pool, cfg, state.step))


@click.command()
@part_options
@click.option("--encoder", default="", help="Released weights that code the crops.")
def main(encoder: str, **options: Any) -> None:
    """Train the last coding step's part of the prior with its predictor."""
    run(*part_arguments(**options), encoder=encoder)


if __name__ == "__main__":
    main()
