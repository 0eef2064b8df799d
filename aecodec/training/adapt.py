"""Adapt the prior to what is coded: `python -m aecodec.training.adapt --config FILE`.

With a predictor the residuals of the last coding step are smaller than the prior has learned to
expect. Here the prior's own part of that step, and the predictor with it, learn on: from a pool of
crops that are coded once, for no later step depends on the last one. With `--whole` all of the
prior and h_s learn, as if what earlier steps decode stayed. Crops are coded by the network
that is trained, with one choice of symbols, or by released weights with all that the default effort
does. Everything is in the arithmetic of the released file. The run resumes from its `last.ckpt`;
then `aecodec.training.join` counts symbols anew.
"""

from __future__ import annotations

from functools import partial
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

LAST, ALL = (3,), (0, 1, 2, 3)  # coding steps that learn
ALIKE = 5.0  # of quality: crops so near to one another are compared in what they cost


class Pool(NamedTuple):
    """Coded crops; tensors (N,...).

    u (N,M,h,w): what steps see of the decoded latent, in 1/64, int16. z (N,Z,h/4,w/4): int16.
    target (N,M,h,w): the latent in quantisation steps. strength (N,M): of the dead zone. coded
    (N,M): whether a channel is, of grey pictures. quality (N,). before (N,): bits that symbols of
    the steps that learn cost. typical (N,): the mean of that for crops of about this quality.
    """

    u: Tensor
    z: Tensor
    target: Tensor
    strength: Tensor
    coded: Tensor
    quality: Tensor
    before: Tensor
    typical: Tensor


@torch.no_grad()
def code_pool(
    model: Codec, tiles: Pixels, cfg: TrainConfig, count: int, encoder: str = "",
    steps: tuple[int, ...] = LAST,
) -> Pool:  # fmt: skip
    """`count` crops at qualities spread evenly, coded with real symbols; steps that learn.

    encoder: name or id of released weights that code them, "" for `model`. They must be those that
    the model started from, or their earlier steps say something else.
    """
    model.eval()
    model.hard = True
    parts = [
        _coded(model, planned(model, encoder, x, quality, grey), quality, grey, steps)
        for x, quality, grey in crops(tiles, cfg, [cfg.seed, 10], count)
    ]
    pool = Pool(*(torch.cat(column) for column in zip(*parts, strict=True)))
    alike = (pool.quality[:, None] - pool.quality).abs() <= ALIKE
    return pool._replace(typical=(alike * pool.before).sum(1) / alike.sum(1))


def _coded(
    model: Codec, found: Planned, quality: Tensor, grey: Tensor, steps: tuple[int, ...] = LAST
) -> Pool:
    """One batch of the pool, not yet compared with others."""
    device = model.s.device
    quality, grey = quality.to(device), grey.to(device)
    coded = torch.where(grey[:, None], model.grey_mask, 1.0).bool()
    pool = Pool(
        model.seen(found.y_hat, quality).to(torch.int16), found.z.to(torch.int16), found.y,
        found.strength, coded, quality, *torch.zeros(2, len(quality)),
    )  # fmt: skip
    return Pool(*(column.cpu() for column in pool._replace(before=bits(model, pool, steps))))


def bits(model: Codec, batch: Pool, steps: tuple[int, ...] = LAST) -> Tensor:
    """(B,): what the steps' symbols cost.

    The gradient moves scale indices by the bits of symbols, and means by what residuals cost.
    """
    batch = Pool(*(column.to(model.s.device) for column in batch))
    common, context = model.common(batch.z.float(), batch.quality), batch.u.float() / GRID
    total = torch.zeros_like(batch.quality)
    for step in reversed(ALL):
        context = put(context, torch.zeros_like(take(context, step)), step)
        if step in steps:
            total = total + _bits(model, batch, step, context, common)
    return total


def _bits(model: Codec, batch: Pool, step: int, context: Tensor, common: Tensor) -> Tensor:
    """(B,): of one step; context (B,M,h,w) is what it sees."""
    mean, index = model.expect(step, context, common, batch.quality)
    mean, index = model.rounded(mean * take(model.steps_per_u(batch.quality), step), index)
    coded, strength = (
        take(column.float()[..., None, None], step) for column in (batch.coded, batch.strength)
    )
    r = (take(batch.target, step) - mean) * coded
    k = model.symbols.choose(r, index, strength)
    cost = model.symbols.bits(k, index)
    level = index.detach().round().clamp(0.0, SCALE_LEVELS - 1.0)
    pull = model.symbols.smooth_cost(r, level)
    return ((cost + pull - pull.detach()) * coded).sum((0, 2, 3, 4))


def loss(model: Codec, batch: Pool, steps: tuple[int, ...] = LAST) -> Tensor:
    """Mean over crops of how much more the steps cost than before, as a share of what they
    typically cost at their quality: crops that cost much count for more, qualities that do not.
    """
    before, typical = batch.before.to(model.s.device), batch.typical.to(model.s.device)
    return ((bits(model, batch, steps) - before) / typical).mean()


def open_run(cfg: TrainConfig, device: torch.device, whole: bool = False) -> PartRun:
    """The run in `cfg.out`, new or as it was left. Raises ValueError for other predictors."""
    if not set(LAST) <= set(cfg.model.predictor_steps):
        raise ValueError("the configuration has no predictor in the last coding step")
    own: tuple[str, ...] = ("prior.enter.3.", "predictor.nets.3.")
    if whole:
        own = ("prior.", "h_s.", "q_prior.", "predictor.nets.")
    state = PartRun(cfg, device, lambda name: name.startswith(own))
    state.model.set_quantised(True)
    return state


def run(
    cfg: TrainConfig, count: int, device: torch.device, encoder: str = "", whole: bool = False
) -> None:
    """Train until the last step or the time limit; encoder: see `code_pool`."""
    state, steps = open_run(cfg, device, whole), ALL if whole else LAST
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    pool = code_pool(state.model, tiles, cfg, count, encoder, steps)
    state.train(partial(loss, steps=steps), batches(pool, cfg, state.step))


@click.command()
@part_options
@click.option("--encoder", default="", help="Released weights that code the crops.")
@click.option("--whole", is_flag=True, help="Train all coding steps, and what they share.")
def main(encoder: str, whole: bool, **options: Any) -> None:
    """Train the last coding step's part of the prior with its predictor."""
    run(*part_arguments(**options), encoder=encoder, whole=whole)


if __name__ == "__main__":
    main()
