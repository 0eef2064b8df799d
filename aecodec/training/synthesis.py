"""Train the synthesis alone: `python -m aecodec.training.synthesis --config FILE`.

The latents of a pool of crops are coded once (`aecodec.training.pool`), and the
synthesis (linear path, g_s and filter) learns to restore the crops from them. Nothing else
is run, so a step takes a fraction of a full one; with `linear_lr = 0` the filter learns alone
and the pool holds pictures of the linear path, which takes half of what is left. With `eye` above
0 it learns what structure looks like beside squared error. The run resumes from its `last.ckpt`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from aecodec.training.config import TrainConfig
from aecodec.training.data import open_tiles
from aecodec.training.model import Codec
from aecodec.training.part import PartRun, batches, part_arguments, part_options
from aecodec.training.pool import Pool, code_pool, filter_alone
from aecodec.training.precision import half_pays
from aecodec.training.structure import structural_error

WATCHED = 40  # batches
HOPELESS = 12.0  # times the median of what the linear path leaves of crops
PARTS = ("linear_s", "linear_bias", "g_s.", "q_s8.", "q_s16.", "filter.")


def _in_band(name: str, band: int) -> bool:
    """Whether a parameter may learn when one band of the filter (-1: all) does."""
    return band < 0 or name.startswith(f"filter.bands.{band}.")


def distortion(model: Codec, batch: Pool, eye: float = 0.0) -> Tensor:
    """Mean over samples of lambda^1/2 x MSE, scaled as in `aecodec.training.loss`.

    eye: how many times as much a percent of a sample's structural error counts as one of its MSE.
    """
    device = model.s.device
    quality, x = batch.quality.to(device), batch.x.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half_pays(device)):
        restore = model.restore if filter_alone(model) else model.synthesis
        x_hat = restore(batch.source.to(device).float(), quality)
    error = _weighted_error(model, x_hat, x, quality)
    if eye:
        structure = structural_error(x_hat.float(), x.float())
        # A sample's share of it is what its MSE is: samples weigh what they did before.
        error = error + eye * (error / structure).detach() * structure
    return error.mean()


def _weighted_error(model: Codec, x_hat: Tensor, x: Tensor, quality: Tensor) -> Tensor:
    """(B,): lambda^1/2 x MSE of each sample."""
    mse = (x_hat.float() - x.float()).square().flatten(1).mean(1)
    log_lambda = model.cfg.log_lambda(quality)
    middle = 0.5 * (math.log(model.cfg.lambda_min) + math.log(model.cfg.lambda_max))
    return torch.exp(0.5 * (log_lambda + middle)) * mse


@torch.no_grad()
def replace_hopeless(model: Codec, pool: Pool) -> int:
    """Put other crops in place of those that no filter restores; gives how many these were.

    Colours that change from pixel to pixel are finer than the chroma of the latent: of such a tile
    everything is lost, and its gradient is a thousand times that of others. pool: of pictures of
    the linear path.
    """
    left = torch.cat([
        _weighted_error(model, (source.float() + 128.0).clamp(0.0, 255.0), x, quality)
        for source, x, quality in zip(*(part.split(32) for part in pool), strict=True)
    ])  # fmt: skip
    hopeless = left > HOPELESS * left.median()
    good, bad = (torch.nonzero(rows)[:, 0] for rows in (~hopeless, hopeless))
    for part in pool:
        part[bad] = part[good[: len(bad)]]
    return len(bad)


@torch.no_grad()
def watch(model: Codec, pool: Pool, cfg: TrainConfig) -> None:
    """Set the filter's 8-bit ranges from what its activations are on part of the pool."""
    some = zip(range(WATCHED), batches(pool, cfg, 0), strict=False)
    model.filter.watch((distortion(model, batch) for _, batch in some), cfg.filter_outliers)


def _learns(cfg: TrainConfig) -> Callable[[str], bool]:
    """Whether a parameter of that name learns."""

    def learns(name: str) -> bool:
        wanted = name.startswith(PARTS) and _in_band(name, cfg.filter_band)
        return wanted and (cfg.linear_lr > 0 or not name.startswith("linear_"))

    return learns


def open_run(cfg: TrainConfig, device: torch.device) -> PartRun:
    """The run in `cfg.out`, new or as it was left."""
    state = PartRun(cfg, device, _learns(cfg))
    state.model.filter.only = cfg.filter_band
    if half_pays(device):
        # 3x3 convolutions on few channels run twice as fast with channels last in bfloat16; in
        # float32, on CPUs without that, they take a third longer.
        state.model.filter.to(memory_format=torch.channels_last)
    state.model.filter.start(cfg.quantised_filter)
    return state


def run(cfg: TrainConfig, count: int, device: torch.device, encoder: str = "") -> None:
    """Train until the last step or the time limit; encoder: see `aecodec.training.pool`."""
    state = open_run(cfg, device)
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    pool = code_pool(state.model, tiles, cfg, count, encoder)
    if filter_alone(state.model):
        replace_hopeless(state.model, pool)
    if cfg.quantised_filter and state.model.filter.lacks_ranges():
        watch(state.model, pool, cfg)
    loss = functools.partial(distortion, eye=cfg.eye)
    state.train(loss, batches(pool, cfg, state.step))


@click.command()
@part_options
@click.option("--band", type=int, help="Train the filter of this band of quality alone.")
@click.option("--encoder", default="", help="Released weights that code the crops.")
def main(band: int | None, encoder: str, **options: Any) -> None:
    """Train linear path, g_s and filter on coded latents."""
    run(*part_arguments(**options, filter_band=band), encoder=encoder)


if __name__ == "__main__":
    main()
