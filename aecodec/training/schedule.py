"""What a step does to learning rates and averages, and when a run is asked to end."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aecodec.training.config import TrainConfig


def learning_rate(step: int, cfg: TrainConfig) -> float:
    """Factor on every learning rate: linear warm-up, then a cosine down to `final_lr`."""
    warm = min(1.0, (step + 1) / max(cfg.warmup, 1))
    t = min(1.0, step / max(cfg.steps, 1))
    return warm * (cfg.final_lr + (1 - cfg.final_lr) * 0.5 * (1 + math.cos(math.pi * t)))


def averaged_share(decay: float, count: float) -> float:
    """What a running average takes of the newest weights after `count` others: all of the first.

    Its horizon grows with its age up to `decay`.
    """
    return 1 - min(decay, (1 + count) / (10 + count)) if count else 1.0


def ema_update(decay: float) -> Any:
    """Update rule of that average, for `AveragedModel`."""

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, averaged_share(decay, float(count)))

    return update


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[threading.Event]:
    """An event that is set, for as long as this lasts, when the process is asked to terminate."""
    asked_to_stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked_to_stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())
    try:
        yield asked_to_stop
    finally:
        signal.signal(signal.SIGTERM, before)
