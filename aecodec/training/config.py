"""Configurations: `Config` of a model, and `TrainConfig` of a run, which a TOML file holds."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Config:
    """Widths and depths. ``M`` latent channels of which the last ones of each kind are chroma."""

    C8: int = 192
    C16: int = 256
    enc_blocks8: int = 3  # without any encoder block there is no g_a beside the linear path
    enc_blocks16: int = 3
    dec_blocks8: int = 2  # likewise g_s
    dec_blocks16: int = 3
    F: int = 32  # channels of the filter after the synthesis, at half resolution
    filter_layers: int = 2
    filter_blocks: int = 0  # residual blocks of two convolutions more
    filter_slope: float = 0.1  # of the filter's inner leaky ReLUs; 8 bits ask for 0
    filter_last_eight: bool = False  # whether its last convolution is one of those in 8 bits
    filter_bands: int = 1  # of quality, each with a filter of its own
    M: int = 320
    Z: int = 96
    H: int = 128
    W: int = 192
    prior_blocks: int = 2
    prior_kernel: int = 3  # side of the prior's depthwise convolutions
    silent_levels: int = 0  # lowest scale levels but one, released as certain zeros like that one
    least_hiding: float = 0.01  # signs per element: scale levels with fewer hide none
    predictor_steps: tuple[int, ...] = ()  # coding steps whose means a picture so far corrects
    predictor_colours: int = 3  # of the picture so far, or 1: their mean, for luma alone
    predictor_width: int = 32  # channels, at half resolution
    predictor_layers: int = 2  # 3x3 convolutions before the residual blocks
    predictor_blocks: int = 3  # of two 3x3 convolutions
    anchors: int = 8
    lambda_min: float = 0.0005
    lambda_max: float = 0.6

    def __post_init__(self) -> None:
        """TOML and JSON have lists only."""
        object.__setattr__(self, "predictor_steps", tuple(self.predictor_steps))

    @property
    def has_g_a(self) -> bool:
        """Whether there is an analysis network beside the linear path."""
        return self.enc_blocks8 + self.enc_blocks16 > 0

    @property
    def has_g_s(self) -> bool:
        """Whether there is a synthesis network beside the linear path."""
        return self.dec_blocks8 + self.dec_blocks16 > 0

    def log_lambda(self, quality: Tensor) -> Tensor:
        """Natural logarithm of lambda at quality 0..100 (log-linear)."""
        lo, hi = math.log(self.lambda_min), math.log(self.lambda_max)
        return lo + (hi - lo) * quality / 100.0


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
    filter_lr: float = 0.0  # the filter, where it learns beside other parts (0: as these)
    predictor_lr: float = 0.0  # likewise
    warmup: int = 100
    final_lr: float = 0.02  # share of the learning rate left at the last step (cosine)
    clip: float = 1.0
    ema: float = 0.999
    grey_share: float = 0.06
    synthetic_share: float = 0.0  # of text, screens, drawings, noise (synthetic.py)
    # Share of values at each end that its 8 bits cut off. More would cost; fewer make the steps
    # coarse, and a step is what runtimes may differ by (docs/determinism.md): at low qualities by
    # too much.
    filter_outliers: float = 1e-5
    filter_band: int = -1  # the one band whose filter learns, on its qualities (-1: all bands)
    seed: int = 1
    ns_steps: int = 4  # Newton-Schulz iterations of Muon
    precision: str = "auto"  # of Lightning Fabric; "auto": bf16-mixed where that is fast
    quantised: bool = False  # train the probability path on its integer grid
    eight_bit_prior: bool = False  # train the prior in its 8-bit arithmetic
    eight_bit_predictor: bool = False  # train the predictor in its 8-bit arithmetic
    quantised_filter: bool = False  # train the filter in its 8-bit arithmetic
    eye: float = 0.0  # share of structural error in what the filter learns from (synthesis.py)
    deadzone: float = 0.0  # strength of the dead zone in what synthesis and later steps see
    hard: bool = False  # rates of the symbols, not of the noisy latent: only for judging
    freeze_synthesis: bool = False  # train the probability model alone
    freeze_analysis: bool = False  # last stage: latents are fixed, decoder and prior adapt
    fit_steps: int = 0  # count symbols anew every so many steps (0: plain Gaussians)
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
