"""A run that trains one part of the codec on a pool of coded crops, with everything else fixed."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from aecodec.training.config import TrainConfig, load_config
from aecodec.training.data import Pixels, sample_batch
from aecodec.training.model import Codec
from aecodec.training.stages import load_start
from aecodec.training.train import ema_update, learning_rate, stop_on_sigterm

Pool = TypeVar("Pool", bound=tuple[Tensor, ...])  # a NamedTuple of tensors, a row per crop


def batches(pool: Pool, cfg: TrainConfig, first: int) -> Iterator[Pool]:
    """Shuffled batches for ever, the same for the same step whenever a run goes on."""
    per_epoch = len(pool[0]) // cfg.batch
    step = first
    while True:
        order = np.random.default_rng([cfg.seed, 5, step // per_epoch]).permutation(len(pool[0]))
        while True:
            at = step % per_epoch * cfg.batch
            rows = torch.from_numpy(order[at : at + cfg.batch])
            step += 1
            yield type(pool)(*(column[rows] for column in pool))
            if step % per_epoch == 0:
                break


def crops(
    tiles: Pixels, cfg: TrainConfig, seed: list[int], count: int,
    ends: tuple[float, float] = (0.0, 100.0),
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """Batches of crops: x (B,3,H,W), qualities (B,) evenly spread between ends, grey (B,) bool."""
    rng, (low, high) = np.random.default_rng(seed), ends
    for start in range(0, count, cfg.batch):
        x, grey = sample_batch(tiles, rng, cfg.batch, cfg.crop, cfg.grey_share, cfg.synthetic_share)
        order = (torch.arange(len(x)) + start) * 0.6180339887  # a low-discrepancy sequence
        yield x, (low + order % 1.0 * (high - low)).float(), grey


def part_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that trains a part."""
    for option in reversed(
        (
            click.option("--config", type=click.Path(exists=True, path_type=Path), required=True),
            click.option(
                "--start", required=True, help="Safetensors file with the weights to start from."
            ),
            click.option("--out", required=True, help="Folder for checkpoints."),
            click.option("--steps", type=int, required=True),
            click.option(
                "--crops", type=int, default=2000, show_default=True, help="Size of the pool."
            ),
            click.option("--minutes", type=float, help="Stop, resumable, after this time."),
            click.option("--threads", type=int, default=0, help="CPU threads (0: all cores)."),
            click.option("--device", default="cpu", show_default=True),
        )
    ):
        command = option(command)
    return command


def part_arguments(
    config: Path, start: str, crops: int, threads: int, device: str, **overrides: Any
) -> tuple[TrainConfig, int, torch.device]:
    """Configuration, size of the pool and device from those options; sets the threads."""
    if threads:
        torch.set_num_threads(threads)
    return load_config(config, overrides | {"start_from": start}), crops, torch.device(device)


class PartRun:
    """Model, average and optimizer of one run, kept in `cfg.out`.

    learns: whether the parameter of a name does. prepare: what to do with the model after the
    weights to start from are loaded.
    """

    def __init__(
        self, cfg: TrainConfig, device: torch.device, learns: Callable[[str], bool],
        prepare: Callable[[Codec], None] = lambda model: None,
    ) -> None:  # fmt: skip
        self.cfg, self.out, self.step, self.minutes = cfg, Path(cfg.out), 0, 0.0
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        self.model = Codec(cfg.model).to(device)
        load_start(self.model, Path(cfg.start_from))
        prepare(self.model)
        self.model.deadzone = cfg.deadzone
        for name, p in self.model.named_parameters():
            p.requires_grad_(learns(name))
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

    def train_step(self, loss: Tensor) -> float:
        """Minimise the loss of a batch by one step; returns its value."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate(self.step, self.cfg)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        params = [p for p in self.model.parameters() if p.grad is not None]
        if torch.isfinite(nn.utils.clip_grad_norm_(params, self.cfg.clip)):
            self.optimizer.step()
            self.ema.update_parameters(self.model)
        self.step += 1
        return loss.item()

    def train(self, loss: Callable[[Codec, Pool], Tensor], pool: Iterator[Pool]) -> None:
        """Train on batches until the last step or the time limit, and save."""
        asked_to_stop, cfg = stop_on_sigterm(), self.cfg
        begin = saved = time.monotonic()
        before, first, total = self.minutes, self.step, 0.0
        for batch in pool:
            total += self.train_step(loss(self.model, batch))
            now = time.monotonic()
            self.minutes = before + (now - begin) / 60
            if self.step % cfg.log_steps == 0:
                rate = (now - begin) / (self.step - first)
                record = {"step": self.step, "loss": round(total / cfg.log_steps, 5),
                          "s_per_step": round(rate, 3)}  # fmt: skip
                print(json.dumps(record), flush=True)
                total = 0.0
            if now - saved > cfg.save_minutes * 60:
                self.save()
                saved = now
            late = bool(cfg.minutes) and (now - begin) / 60 > cfg.minutes
            if self.step >= cfg.steps or late or asked_to_stop.is_set():
                break
        self.save()

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
