"""Train the synthesis alone: `python -m aecodec.training.synthesis --config FILE`.

The latents of a pool of crops are coded once, as the released encoder codes them, and the
synthesis (linear path, g_s and filter) learns to restore the crops from them. Nothing else
is run, so a step takes a fraction of a full one; with `linear_lr = 0` the filter learns alone
and the pool holds pictures of the linear path, which takes half of what is left. The run
resumes from its `last.ckpt`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from aecodec.training.config import TrainConfig, load_config
from aecodec.training.data import Pixels, open_tiles, sample_batch
from aecodec.training.model import Codec
from aecodec.training.precision import half_pays
from aecodec.training.stages import load_start
from aecodec.training.train import ema_update, learning_rate, stop_on_sigterm

WATCHED = 40  # batches
PARTS = ("linear_s", "linear_bias", "g_s.", "q_s8.", "q_s16.", "filter.")
MARGIN = 8.0  # of quality, beyond its ends, that a band's filter learns too


class Pool(NamedTuple):
    """Coded crops: what the synthesis starts from, x (N,3,H,W) uint8, quality (N,).

    source is y_hat (N,M,h,w) in natural units, or (N,3,H,W) as the linear path restores it;
    both float16.
    """

    source: Tensor
    x: Tensor
    quality: Tensor


@torch.no_grad()
def code_pool(model: Codec, tiles: Pixels, cfg: TrainConfig, count: int) -> Pool:
    """`count` crops at qualities spread evenly, coded by `model` with real symbols."""
    model.eval()
    model.hard, device = True, model.s.device
    low, high = quality_ends(cfg)
    rng = np.random.default_rng([cfg.seed, 4])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, count, cfg.batch):
        x, grey = sample_batch(tiles, rng, cfg.batch, cfg.crop, cfg.grey_share, cfg.synthetic_share)
        order = (torch.arange(len(x)) + start) * 0.6180339887  # a low-discrepancy sequence
        quality = (low + order % 1.0 * (high - low)).float()
        with torch.autocast(device.type, torch.bfloat16, enabled=half_pays(device)):
            source = model.coded_latent(x.to(device), quality.to(device), grey.to(device))
        if filter_alone(model):
            source = model.linear_synthesis(source).contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        parts.append((source.half().cpu(), x.to(torch.uint8), quality))
    return Pool(*(torch.cat(column) for column in zip(*parts, strict=True)))


def quality_ends(cfg: TrainConfig) -> tuple[float, float]:
    """Least and greatest quality to learn from: all, or the band's and a little more."""
    if cfg.filter_band < 0:
        return 0.0, 100.0
    width = 100.0 / cfg.model.filter_bands
    low = cfg.filter_band * width
    return max(0.0, low - MARGIN), min(100.0, low + width + MARGIN)


def filter_alone(model: Codec) -> bool:
    """Whether nothing before the filter learns."""
    return model.g_s is None and not model.linear_s.requires_grad


def batches(pool: Pool, cfg: TrainConfig, first: int) -> Iterator[Pool]:
    """Shuffled batches for ever, the same for the same step whenever a run goes on."""
    per_epoch = len(pool.x) // cfg.batch
    step = first
    while True:
        order = np.random.default_rng([cfg.seed, 5, step // per_epoch]).permutation(len(pool.x))
        while True:
            at = step % per_epoch * cfg.batch
            rows = torch.from_numpy(order[at : at + cfg.batch])
            step += 1
            yield Pool(*(column[rows] for column in pool))
            if step % per_epoch == 0:
                break


def _in_band(name: str, band: int) -> bool:
    """Whether a parameter may learn when one band of the filter (-1: all) does."""
    return band < 0 or name.startswith(f"filter.bands.{band}.")


def distortion(model: Codec, batch: Pool) -> Tensor:
    """Mean over samples of lambda^1/2 x MSE, scaled as in `aecodec.training.loss`."""
    device = model.s.device
    quality = batch.quality.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half_pays(device)):
        restore = model.restore if filter_alone(model) else model.synthesis
        x_hat = restore(batch.source.to(device).float(), quality)
    mse = (x_hat.float() - batch.x.to(device).float()).square().flatten(1).mean(1)
    log_lambda = model.cfg.log_lambda(quality)
    middle = 0.5 * (math.log(model.cfg.lambda_min) + math.log(model.cfg.lambda_max))
    return (torch.exp(0.5 * (log_lambda + middle)) * mse).mean()


@torch.no_grad()
def watch(model: Codec, pool: Pool, cfg: TrainConfig) -> None:
    """Set the filter's 8-bit ranges from what its activations are on part of the pool."""
    for band in model.filter:
        band.quantised, band.watching = False, True
        band.seen = [0] * len(band.low)
    for _, batch in zip(range(WATCHED), batches(pool, cfg, 0), strict=False):
        distortion(model, batch)
    for band in model.filter:
        band.watching = False
    model.filter.set_quantised(True)


class SynthesisRun:
    """Model, average and optimizer of one run, kept in `cfg.out`."""

    def __init__(self, cfg: TrainConfig, device: torch.device) -> None:
        self.cfg, self.out, self.step, self.minutes = cfg, Path(cfg.out), 0, 0.0
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        self.model = Codec(cfg.model).to(device)
        load_start(self.model, Path(cfg.start_from))
        self.model.deadzone = cfg.deadzone
        for name, p in self.model.named_parameters():
            learns = name.startswith(PARTS) and _in_band(name, cfg.filter_band)
            p.requires_grad_(learns and (cfg.linear_lr > 0 or not name.startswith("linear_")))
        self.model.filter.only = cfg.filter_band
        # 3x3 convolutions on few channels run twice as fast on CPUs with channels last.
        self.model.filter.to(memory_format=torch.channels_last)
        self.ema = AveragedModel(self.model, multi_avg_fn=ema_update(cfg.ema))
        rates = [("linear_", cfg.linear_lr), ("", cfg.adam_lr)]
        groups: list[dict[str, Any]] = [{"params": [], "lr": lr, "base_lr": lr} for _, lr in rates]
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                groups[0 if name.startswith("linear_") else 1]["params"].append(p)
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        if (self.out / "last.ckpt").exists():
            state = torch.load(self.out / "last.ckpt", map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.minutes = state["step"], state["minutes"]
        self.model.filter.set_quantised(cfg.quantised_filter)

    def train_step(self, batch: Pool) -> float:
        """One optimisation step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate(self.step, self.cfg)
        self.optimizer.zero_grad(set_to_none=True)
        loss = distortion(self.model, batch)
        loss.backward()
        params = [p for p in self.model.parameters() if p.grad is not None]
        if torch.isfinite(nn.utils.clip_grad_norm_(params, self.cfg.clip)):
            self.optimizer.step()
            self.ema.update_parameters(self.model)
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Write last.ckpt to go on from, and best.safetensors with the averaged weights."""
        state = {"model": self.model.state_dict(), "ema": self.ema.state_dict(),
                 "optimizer": self.optimizer.state_dict(),
                 "step": self.step, "minutes": self.minutes}  # fmt: skip
        part = self.out / "last.part"
        torch.save(state, part)
        part.rename(self.out / "last.ckpt")
        averaged = {k: v.contiguous() for k, v in self.ema.module.state_dict().items()}
        save_file(averaged, self.out / "best.safetensors")
        meta = {"step": self.step, "minutes": self.minutes, "config": dataclasses.asdict(self.cfg)}
        (self.out / "best.json").write_text(json.dumps(meta, indent=1))


def run(cfg: TrainConfig, count: int, device: torch.device) -> None:
    """Train until the last step or the time limit."""
    state = SynthesisRun(cfg, device)
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    pool = code_pool(state.model, tiles, cfg, count)
    if cfg.quantised_filter and not any(band.quantised for band in state.model.filter):
        watch(state.model, pool, cfg)
    asked_to_stop = stop_on_sigterm()
    begin = saved = time.monotonic()
    before, first, total = state.minutes, state.step, 0.0
    for batch in batches(pool, cfg, state.step):
        total += state.train_step(batch)
        now = time.monotonic()
        state.minutes = before + (now - begin) / 60
        if state.step % cfg.log_steps == 0:
            rate = (now - begin) / (state.step - first)
            record = {"step": state.step, "loss": round(total / cfg.log_steps, 5),
                      "s_per_step": round(rate, 3)}  # fmt: skip
            print(json.dumps(record), flush=True)
            total = 0.0
        if now - saved > cfg.save_minutes * 60:
            state.save()
            saved = now
        late = bool(cfg.minutes) and (now - begin) / 60 > cfg.minutes
        if state.step >= cfg.steps or late or asked_to_stop.is_set():
            break
    state.save()


@click.command()
@click.option("--config", "path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--start", required=True, help="Safetensors file with the weights to start from.")
@click.option("--out", required=True, help="Folder for checkpoints.")
@click.option("--steps", type=int, required=True)
@click.option("--band", type=int, help="Train the filter of this band of quality alone.")
@click.option("--crops", type=int, default=4000, show_default=True, help="Size of the pool.")
@click.option("--minutes", type=float, help="Stop, resumable, after this time.")
@click.option("--threads", type=int, default=0, help="CPU threads (0: all cores).")
@click.option("--device", default="cpu", show_default=True)
def main(
    path: Path, start: str, out: str, steps: int, band: int | None, crops: int,
    minutes: float | None, threads: int, device: str,
) -> None:  # fmt: skip
    """Train linear path, g_s and filter on coded latents."""
    overrides = {"start_from": start, "out": out, "steps": steps, "minutes": minutes}
    overrides |= {"filter_band": band}
    if threads:
        torch.set_num_threads(threads)
    run(load_config(path, overrides), crops, torch.device(device))


if __name__ == "__main__":
    main()
