"""Configuration of a training run: a TOML file with the fields of `TrainConfig`."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aecodec.training.model import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, for how long, and how. Paths are relative to the working directory."""

    data: str = "data/train"  # folder of pictures or tars
    valid: str = "data/valid"  # folder of pictures
    cache: str = "runs/tiles.u8"  # decoded training tiles
    out: str = "runs/base"  # checkpoints, log, best weights
    steps: int = 15000
    batch: int = 8  # over all processes
    crop: int = 256
    muon_lr: float = 3e-3  # matrices of h_a, h_s and the prior
    transform_lr: float = 7e-4  # matrices of g_a and g_s (Adam)
    head_lr: float = 0.15  # share of it for their last layers
    adam_lr: float = 1e-3  # vectors, depthwise kernels, entropy model
    linear_lr: float = 1e-4  # the linear path
    warmup: int = 100
    final_lr: float = 0.02  # share of the learning rate left at the last step (cosine)
    clip: float = 1.0
    ema: float = 0.999
    grey_share: float = 0.06
    synthetic_share: float = 0.0  # of text, screens, drawings, noise (synthetic.py)
    seed: int = 1
    ns_steps: int = 4  # Newton-Schulz iterations of Muon
    precision: str = "bf16-mixed"
    quantised: bool = False  # train the probability path on its integer grid
    deadzone: float = 0.0  # strength of the dead zone in what synthesis and later steps see
    hard: bool = False  # rates of the symbols, not of the noisy latent: only for judging
    freeze_analysis: bool = False  # last stage: latents are fixed, decoder and prior adapt
    minutes: float = 0.0  # stop after this time (0: no limit)
    log_steps: int = 50
    save_minutes: float = 10.0
    valid_minutes: float = 30.0
    start_from: str = ""  # safetensors file to start from instead of principal components
    model: Config = field(default_factory=Config)


def load_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Read a TOML file; unknown names are refused with a TypeError that names them."""
    values = tomllib.loads(path.read_text())
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    model = Config(**values.pop("model", {}))
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TypeError(f"{path}: unknown setting {', '.join(unknown)}")
    return TrainConfig(model=model, **values)
