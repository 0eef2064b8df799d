"""A run that trains one part of the codec on a pool of coded crops, with everything else fixed."""

from __future__ import annotations

import dataclasses
import json
import threading
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
from aecodec.training.schedule import averaged_share, learning_rate, stop_on_sigterm
from aecodec.training.stages import load_start

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
        self.share: float | Tensor = 1.0  # of the newest weights in the average
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        self.model = Codec(cfg.model).to(device)
        load_start(self.model, Path(cfg.start_from))
        prepare(self.model)
        self.model.deadzone = cfg.deadzone
        for name, p in self.model.named_parameters():
            p.requires_grad_(learns(name))
        self.ema = AveragedModel(self.model)
        rates = {
            "linear_": cfg.linear_lr,
            "filter.": cfg.filter_lr or cfg.adam_lr,
            "predictor.": cfg.predictor_lr or cfg.adam_lr,
            "": cfg.adam_lr,
        }
        groups: dict[str, dict[str, Any]] = {
            start: {"params": [], "lr": lr, "base_lr": lr} for start, lr in rates.items()
        }
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                start = next(start for start in rates if name.startswith(start))
                groups[start]["params"].append(p)
        self.optimizer = torch.optim.Adam(list(groups.values()), betas=(0.9, 0.99))
        if (self.out / "last.ckpt").exists():
            state = torch.load(self.out / "last.ckpt", map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.minutes = state["step"], state["minutes"]

    def train_step(self, loss: Callable[[Codec, Pool], Tensor], batch: Pool) -> Tensor:
        """Minimise the loss of a batch by one step; returns its value, on the device."""
        rate, share = learning_rate(self.step, self.cfg), averaged_share(self.cfg.ema, self.step)
        self._set_rates(rate, share)
        value = self._learn(loss, batch)
        self.step += 1
        return value

    def _set_rates(self, rate: float, share: float) -> None:
        """Take over the factor on learning rates and the share that the average takes."""
        self.share = share
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate

    def _learn(self, loss: Callable[[Codec, Pool], Tensor], batch: Pool) -> Tensor:
        """Everything of a step that happens on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        value = loss(self.model, batch)
        value.backward()
        params = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(params, self.cfg.clip)
        # To ask a GPU in every step would be to wait for it.
        if value.device.type != "cpu" or torch.isfinite(norm):
            self.optimizer.step()
            self._average()
        return value.detach()

    @torch.no_grad()
    def _average(self) -> None:
        """As `AveragedModel.update_parameters`, which waits for a GPU; buffers follow in `save`."""
        averaged, current = (list(m.parameters()) for m in (self.ema.module, self.model))
        ahead = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(ahead, self.share)
        torch._foreach_add_(averaged, ahead)
        self.ema.n_averaged += 1

    def train(self, loss: Callable[[Codec, Pool], Tensor], pool: Iterator[Pool]) -> None:
        """Train on batches until the last step or the time limit, and save."""
        with stop_on_sigterm() as asked_to_stop:
            self._train(loss, pool, asked_to_stop)

    def _train(
        self, loss: Callable[[Codec, Pool], Tensor], pool: Iterator[Pool],
        asked_to_stop: threading.Event,
    ) -> None:  # fmt: skip
        cfg = self.cfg
        begin = saved = time.monotonic()
        before, first, total = self.minutes, self.step, torch.zeros(())
        for batch in pool:
            total = total + self.train_step(loss, batch)
            now = time.monotonic()
            self.minutes = before + (now - begin) / 60
            if self.step % cfg.log_steps == 0:
                rate = (now - begin) / (self.step - first)
                record = {"step": self.step, "loss": round(float(total) / cfg.log_steps, 5),
                          "s_per_step": round(rate, 3)}  # fmt: skip
                print(json.dumps(record), flush=True)
                total = torch.zeros(())
            if now - saved > cfg.save_minutes * 60:
                self.save()
                saved = now
            late = bool(cfg.minutes) and (now - begin) / 60 > cfg.minutes
            if self.step >= cfg.steps or late or asked_to_stop.is_set():
                break
        self.save()

    def save(self) -> None:
        """Write last.ckpt to go on from, and best.safetensors with the averaged weights."""
        buffers = (m.buffers() for m in (self.ema.module, self.model))
        for averaged, current in zip(*buffers, strict=True):  # counts and ranges are no averages
            averaged.copy_(current)
        state = {"model": self.model.state_dict(), "ema": self.ema.state_dict(),
                 "optimizer": self.optimizer.state_dict(),
                 "step": self.step, "minutes": self.minutes}  # fmt: skip
        part = self.out / "last.part"
        torch.save(state, part)
        part.rename(self.out / "last.ckpt")
        weights = {k: v.contiguous() for k, v in self.ema.module.state_dict().items()}
        save_file(weights, self.out / "best.safetensors")
        meta = {"step": self.step, "minutes": self.minutes, "config": dataclasses.asdict(self.cfg)}
        (self.out / "best.json").write_text(json.dumps(meta, indent=1))
