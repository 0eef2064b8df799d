"""The trainer: `python -m aecodec.training.train --config FILE`.

Runs on two CPU cores or many GPUs (Lightning Fabric). Everything random is drawn from
(seed, rank, step), so a run that was stopped and resumed gives the same weights as one that
was not. A run stops at its time limit with a checkpoint and goes on with the same command.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from lightning.fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from aecodec.quantise import STRENGTH
from aecodec.training.config import TrainConfig, load_config
from aecodec.training.data import Pixels, block_components, open_pictures, open_tiles, sample_batch
from aecodec.training.loss import Loss, psnr, rate_distortion
from aecodec.training.model import Codec
from aecodec.training.precision import precision
from aecodec.training.schedule import ema_update, learning_rate, stop_on_sigterm
from aecodec.training.stages import (
    choose_points,
    fit_symbols,
    freeze_analysis,
    freeze_synthesis,
    load_start,
)

# Last layers, whose output goes straight into pixels or latents. Beside the linear path the
# networks have a weak signal at first: what moves every direction alike (Muon) or moves these
# layers fast drowns it in noise, and the networks fall silent (see docs/training.md).
HEADS = ("g_a.head.weight", "g_s.head.weight")
FIT_BATCHES = 6  # enough for about a million symbols of every common scale index
VALID_QUALITIES = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


def make_optimizers(model: Codec, cfg: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the hyper-networks and the prior, Adam for everything else."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups.setdefault(_group(name, p), []).append(p)
    rates = {
        "rest": cfg.adam_lr,
        "transform": cfg.transform_lr,
        "head": cfg.transform_lr * cfg.head_lr,
        "linear": cfg.linear_lr,
    }
    adam = torch.optim.Adam(
        [{"params": groups[name], "lr": lr} for name, lr in rates.items() if name in groups],
        betas=(0.9, 0.99),
    )
    muon = torch.optim.Muon(
        groups["matrix"], lr=cfg.muon_lr, weight_decay=0.0, momentum=0.95, ns_steps=cfg.ns_steps
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return [muon, adam]


def _group(name: str, p: nn.Parameter) -> str:
    """Which learning rate a parameter has; see `make_optimizers`."""
    if name.startswith("linear_"):
        return "linear"
    if p.dim() != 2 or not name.endswith("weight"):
        return "rest"
    if name in HEADS:
        return "head"
    return "transform" if name.startswith(("g_a.", "g_s.")) else "matrix"


def new_model(cfg: TrainConfig, tiles: Pixels) -> Codec:
    """Weights to start from: an earlier model, or principal components of the training tiles."""
    torch.manual_seed(cfg.seed)
    model = Codec(cfg.model)
    if cfg.start_from:
        load_start(model, Path(cfg.start_from))
    else:
        rng = np.random.default_rng(cfg.seed)
        model.start_from_blocks(*block_components(tiles, cfg.model.M, rng))
    return model


@torch.no_grad()
def validate(model: Codec, pictures: list[Tensor], device: torch.device) -> dict[str, Any]:
    """Estimated bpp and PSNR (8-bit, mean over pictures) at a few qualities, EMA weights.

    `score` is the mean over qualities of log2(bpp + lambda * MSE): 0.01 is about 0.7 % of
    the rate-distortion cost, lower is better.
    """
    points, score = [], 0.0
    model.eval()
    for quality in VALID_QUALITIES:
        bpp, db, cost = [], [], []
        for picture in pictures:
            x = picture[None].to(device).contiguous(memory_format=torch.channels_last)
            q = torch.tensor([quality], device=device)
            out = model(x, q, torch.zeros(1, dtype=torch.bool, device=device))
            out = out._replace(x_hat=out.x_hat.clamp(0, 255).round())
            loss: Loss = rate_distortion(out, x, q, model.cfg)
            bpp.append(loss.bpp.item())
            db.append(psnr(loss.mse).item())
            weight = math.exp(model.cfg.log_lambda(q).item())
            cost.append(loss.bpp.item() + weight * loss.mse.item())
        points.append((quality, float(np.mean(bpp)), float(np.mean(db))))
        score += math.log2(float(np.mean(cost))) / len(VALID_QUALITIES)
    model.train()
    return {"score": score, "points": points}


class Run:
    """One training run: model, average, optimizers, and where they are kept."""

    def __init__(self, cfg: TrainConfig, fabric: Fabric) -> None:
        self.cfg, self.fabric, self.step = cfg, fabric, 0
        self.out = Path(cfg.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
        self.model = new_model(cfg, self.tiles).to(memory_format=torch.channels_last)
        self.model.set_quantised(cfg.quantised)
        self.model.deadzone, self.model.hard = cfg.deadzone, cfg.hard
        if cfg.eight_bit_prior and not self.model.prior.source.scale:
            choose_points(self.model, self.tiles, cfg)
        if cfg.freeze_analysis:
            freeze_analysis(self.model)
        if cfg.freeze_synthesis:
            freeze_synthesis(self.model)
        self.ema = AveragedModel(self.model, multi_avg_fn=ema_update(cfg.ema))
        self.optimizers = make_optimizers(self.model, cfg)
        self.best = math.inf
        self.minutes = 0.0
        wrapped = fabric.setup(self.model, *self.optimizers)
        self.wrapped, self.optimizers = wrapped[0], list(wrapped[1:])
        self.ema.to(fabric.device)
        if (self.out / "last.ckpt").exists():
            self.load()

    def log(self, record: dict[str, Any]) -> None:
        """Append one JSON line to the run's log and print it (first process only)."""
        if self.fabric.is_global_zero:
            line = json.dumps(record)
            print(line, flush=True)
            with (self.out / "log.jsonl").open("a") as file:
                file.write(line + "\n")

    def save(self) -> None:
        """Write last.ckpt (temporary file, then rename)."""
        if self.fabric.is_global_zero:
            state = {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
                "step": self.step,
                "best": self.best,
                "minutes": self.minutes,
                "config": dataclasses.asdict(self.cfg),
            }
            part = self.out / "last.part"
            torch.save(state, part)
            part.rename(self.out / "last.ckpt")

    def load(self) -> None:
        """Go on from last.ckpt."""
        state = torch.load(self.out / "last.ckpt", map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.best, self.minutes = state["step"], state["best"], state["minutes"]

    def train_step(self) -> Loss:
        """One optimisation step; a step whose gradient is not finite is skipped."""
        cfg = self.cfg
        rank, world = self.fabric.global_rank, self.fabric.world_size
        if cfg.fit_steps and self.step % cfg.fit_steps == 0:
            with self.fabric.autocast():
                fit_symbols(self.model, self.tiles, cfg, FIT_BATCHES)
        rng = np.random.default_rng([cfg.seed, rank, self.step])
        torch.manual_seed(int(rng.integers(2**62)))
        x, grey = sample_batch(
            self.tiles, rng, cfg.batch // world, cfg.crop, cfg.grey_share, cfg.synthetic_share
        )
        x = x.to(self.fabric.device).contiguous(memory_format=torch.channels_last)
        quality = torch.rand(len(x), device=x.device) * 100.0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * learning_rate(self.step, cfg)
            optimizer.zero_grad(set_to_none=True)
        loss = rate_distortion(
            self.wrapped(x, quality, grey.to(x.device)), x, quality, self.model.cfg
        )
        self.fabric.backward(loss.total)
        params = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(params, cfg.clip)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self.ema.update_parameters(self.model)
        self.step += 1
        return loss

    def validate(self, pictures: list[Tensor]) -> None:
        """Score the averaged weights; keep them as best.safetensors if nothing was better."""
        if not (self.fabric.is_global_zero and pictures):
            return
        averaged: Codec = self.ema.module
        # Judged as it will be shipped: integers on the probability path, chosen symbols.
        averaged.set_quantised(True)
        averaged.deadzone, averaged.hard, averaged.with_filter = STRENGTH, True, True
        with self.fabric.autocast():
            if self.cfg.fit_steps:
                fit_symbols(averaged, self.tiles, self.cfg, 8 * FIT_BATCHES)
            result = validate(averaged, pictures, self.fabric.device)
        averaged.set_quantised(self.cfg.quantised)
        averaged.deadzone, averaged.hard = self.cfg.deadzone, self.cfg.hard
        averaged.with_filter = not self.cfg.freeze_synthesis
        self.log({"step": self.step, "minutes": round(self.minutes, 1), "valid": result})
        if result["score"] < self.best:
            self.best = result["score"]
            state = {k: v.contiguous() for k, v in averaged.state_dict().items()}
            save_file(state, self.out / "best.safetensors")
            meta = {"step": self.step, "minutes": self.minutes, "valid": result}
            meta["config"] = dataclasses.asdict(self.cfg)
            (self.out / "best.json").write_text(json.dumps(meta, indent=1))


def run(cfg: TrainConfig, fabric: Fabric) -> None:
    """Train until the last step, the time limit, or a signal to terminate (after a save)."""
    state = Run(cfg, fabric)
    with stop_on_sigterm() as asked_to_stop:
        _train(state, cfg, asked_to_stop)


def _train(state: Run, cfg: TrainConfig, asked_to_stop: threading.Event) -> None:
    pictures = open_pictures(Path(cfg.valid)) if cfg.valid and cfg.valid_minutes else []
    start = saved = time.monotonic()
    minutes_before = state.minutes
    validated = state.minutes
    sums, count, first = np.zeros(3), 0, state.step
    while state.step < cfg.steps:
        loss = state.train_step()
        now = time.monotonic()
        state.minutes = minutes_before + (now - start) / 60
        sums += [loss.total.item(), loss.bpp.mean().item(), psnr(loss.mse.detach()).mean().item()]
        count += 1
        if state.step % cfg.log_steps == 0:
            rate = (now - start) / (state.step - first)
            total, bpp, db = (round(float(v), 4) for v in sums / count)
            left = round(rate * (cfg.steps - state.step) / 60, 1)
            state.log({"step": state.step, "loss": total, "bpp": bpp, "psnr": db,
                       "s_per_step": round(rate, 3), "minutes_left": left})  # fmt: skip
            sums, count = np.zeros(3), 0
        if now - saved > cfg.save_minutes * 60:
            state.save()
            saved = now
        if cfg.valid_minutes and state.minutes - validated > cfg.valid_minutes:
            state.validate(pictures)
            validated = state.minutes
        if asked_to_stop.is_set() or (cfg.minutes and (now - start) / 60 > cfg.minutes):
            break
    state.save()
    if not asked_to_stop.is_set():
        state.validate(pictures)


@click.command()
@click.option("--config", "path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", help="Folder for checkpoints and log, instead of the configuration's.")
@click.option("--steps", type=int, help="Length of the run (and of its learning-rate curve).")
@click.option("--minutes", type=float, help="Stop, resumable, after this time.")
@click.option("--accelerator", default="auto", show_default=True)
@click.option("--devices", default="auto", show_default=True)
@click.option("--threads", type=int, default=0, help="CPU threads (0: all cores).")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any other setting.")
def main(
    path: Path,
    out: str | None,
    steps: int | None,
    minutes: float | None,
    accelerator: str,
    devices: str,
    threads: int,
    settings: tuple[str, ...],
) -> None:
    """Train the codec from a configuration file, or go on where the last run stopped."""
    overrides: dict[str, Any] = {"out": out, "steps": steps, "minutes": minutes}
    for item in settings:
        name, _, value = item.partition("=")
        try:
            overrides[name] = json.loads(value)
        except json.JSONDecodeError:
            overrides[name] = value
    cfg = load_config(path, overrides)
    if threads:
        torch.set_num_threads(threads)
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    kind = precision(cfg.precision, "cpu" if on_cpu else "cuda")
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=kind)
    fabric.launch()
    run(cfg, fabric)


if __name__ == "__main__":
    main()
