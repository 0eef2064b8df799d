"""Adapt the prior to a predictor: `python -m aecodec.training.adapt --config FILE`.

With a predictor the residuals of the last coding step are smaller than the prior has learned to
expect. Here the prior's own part of that step, and the predictor with it, learn on: from a pool of
crops that are coded once, for no later step depends on the last one. Everything is in the
arithmetic of the released file. The run resumes from its `last.ckpt`; then `aecodec.training.join`
counts symbols anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aecodec.training.config import TrainConfig
from aecodec.training.data import Pixels, open_tiles
from aecodec.training.layers import GRID, LIMIT, TOP
from aecodec.training.model import Codec
from aecodec.training.part import PartRun, batches, crops, part_command
from aecodec.training.predict import LEAST_COST
from aecodec.training.quarters import put, take
from aecodec.training.symbols import SCALE_LEVELS

STEP = 3  # the last one


class Pool(NamedTuple):
    """Coded crops; tensors (N,...).

    context (N,M,h,w): u_hat of earlier steps in 1/64, int16. common (N,W,h,w): in 1/64, int16.
    target (N,4,M/4,h/2,w/2): the step's part of the latent in quantisation steps, as `take` cuts
    it. coded (N,M): whether a channel is, of grey pictures. quality (N,). before (N,): bits that
    the step's symbols cost.
    """

    context: Tensor
    common: Tensor
    target: Tensor
    coded: Tensor
    quality: Tensor
    before: Tensor


@torch.no_grad()
def code_pool(model: Codec, tiles: Pixels, cfg: TrainConfig, count: int) -> Pool:
    """`count` crops at qualities spread evenly, coded with real symbols."""
    model.eval()
    model.hard, device = True, model.s.device
    parts = []
    for x, quality, grey in crops(tiles, cfg, [cfg.seed, 10], count):
        parts.append(_coded(model, x.to(device), quality.to(device), grey.to(device)))
    return Pool(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _coded(model: Codec, x: Tensor, quality: Tensor, grey: Tensor) -> Pool:
    """One batch of the pool."""
    y = model.analysis(x, quality).contiguous(memory_format=torch.channels_last)
    z_hat, _ = model.hyper(y, quality)
    coded = torch.where(grey[:, None], model.grey_mask, 1.0)
    y_hat, _ = model.code_latent(y, z_hat, quality, coded[..., None, None])
    u = torch.round(F.hardtanh(y_hat / model.s[None, :, None, None], -LIMIT, TOP) * GRID)
    context = put(u, torch.zeros_like(take(u, STEP)), STEP)
    target = take(y * torch.exp(model.log_gain(quality)), STEP).transpose(0, 1)
    common = torch.round(model.common(z_hat, quality) * GRID)
    pool = Pool(
        context.to(torch.int16), common.to(torch.int16), target, coded.bool(), quality,
        torch.zeros_like(quality),
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
    coded = take(batch.coded.to(device).float()[..., None, None], STEP)
    r = (batch.target.to(device).transpose(0, 1) - mean) * coded
    k = model.symbols.choose(r, index, model.deadzone)
    cost = model.symbols.bits(k, index)
    level = index.detach().round().clamp(0.0, SCALE_LEVELS - 1.0)
    pull = model.symbols.smooth_cost(r, level)
    return ((cost + pull - pull.detach()) * coded).sum((0, 2, 3, 4))


def loss(model: Codec, batch: Pool) -> Tensor:
    """Mean over crops of how much more the step costs than before, as a share of that."""
    before = batch.before.to(model.s.device)
    return ((bits(model, batch) - before) / (before + LEAST_COST)).mean()


def open_run(cfg: TrainConfig, device: torch.device) -> PartRun:
    """The run in `cfg.out`, new or as it was left. Raises ValueError for other predictors."""
    if STEP not in cfg.model.predictor_steps:
        raise ValueError("the configuration has no predictor in the last coding step")
    own = (f"prior.enter.{STEP}.", f"predictor.nets.{STEP}.")
    state = PartRun(cfg, device, lambda name: name.startswith(own))
    state.model.set_quantised(True)
    return state


def run(cfg: TrainConfig, count: int, device: torch.device) -> None:
    """Train until the last step or the time limit."""
    state = open_run(cfg, device)
    pool = code_pool(state.model, open_tiles(Path(cfg.data), Path(cfg.cache)), cfg, count)
    state.train(loss, batches(pool, cfg, state.step))


main = part_command(run, "Train the last coding step's part of the prior with its predictor.")

if __name__ == "__main__":
    main()
