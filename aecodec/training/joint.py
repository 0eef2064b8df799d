"""Train all that follows the latent at once: `python -m aecodec.training.joint --config FILE`.

Latents and steps stay as they are; crops are coded as the released encoder codes them, fresh ones
in every step. h_a, h_s, prior and predictor learn from the bits of the symbols, the filters from
the errors of what they restore; neither learns through the symbols. A batch has equally many
samples for each band of quality. Meant for a GPU: nothing in a step waits for it. The run resumes
from its `last.ckpt`; then `aecodec.training.join` counts symbols anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from aecodec.training.captured import CapturedRun
from aecodec.training.config import TrainConfig
from aecodec.training.crops import DeviceCrops, to_device
from aecodec.training.data import open_tiles
from aecodec.training.loss import rate_distortion
from aecodec.training.model import Codec
from aecodec.training.part import PartRun, part_arguments, part_options
from aecodec.training.pool import MARGIN
from aecodec.training.precision import half_pays
from aecodec.training.synthesis import WATCHED

FIXED = (
    "g_a.", "g_s.", "q_a8.", "q_a16.", "q_s16.", "q_s8.", "linear_", "log_gain.", "log_inverse.",
    "predictor.picture.", "predictor.back.",
)  # fmt: skip


class Batch(NamedTuple):
    """x (B,3,H,W) 0..255, quality (B,) in ascending bands, grey (B,) bool; on the device."""

    x: Tensor
    quality: Tensor
    grey: Tensor


def batches(crops: DeviceCrops, cfg: TrainConfig, first: int) -> Iterator[Batch]:
    """Fresh batches for ever, the same for the same step whenever a run goes on."""
    step = first
    while True:
        rng = np.random.default_rng([cfg.seed, 8, step])
        torch.manual_seed(int(rng.integers(2**62)))
        x, grey = crops.batch(rng, cfg.batch, cfg.crop, cfg.grey_share, cfg.synthetic_share)
        quality = to_device(qualities(rng, cfg), x.device)
        step += 1
        yield Batch(x, quality, grey)


def qualities(rng: np.random.Generator, cfg: TrainConfig) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(B,) float32: equally many for each band, from a little beyond its ends."""
    bands = cfg.model.filter_bands
    width = 100.0 / bands
    low = np.repeat(np.arange(bands), cfg.batch // bands) * width
    share = rng.random(len(low))
    return np.clip(low - MARGIN / 2 + share * (width + MARGIN), 0.0, 100.0).astype(np.float32)


def loss(model: Codec, batch: Batch) -> Tensor:
    """The rate-distortion loss of true symbols."""
    device = model.s.device
    with torch.autocast(device.type, torch.bfloat16, enabled=half_pays(device)):
        out = model(*batch)
    return rate_distortion(out, batch.x, batch.quality, model.cfg).total


def scales_to_host(model: Codec) -> None:
    """Keep the 8-bit scales where they are read as numbers: a GPU would be waited for."""
    for module in model.modules():
        for name in ("scale", "low", "high"):
            if isinstance(value := getattr(module, name, None), Tensor):
                setattr(module, name, value.cpu())


@torch.no_grad()
def watch(model: Codec, crops: Iterator[Batch], cfg: TrainConfig) -> None:
    """Set the filters' 8-bit ranges from what their activations are."""
    some = zip(range(WATCHED), crops, strict=False)
    model.filter.watch((loss(model, batch) for _, batch in some), cfg.filter_outliers)


def open_run(cfg: TrainConfig, device: torch.device) -> PartRun:
    """The run in `cfg.out`, new or as it was left. Raises ValueError for an uneven batch."""
    if cfg.batch % cfg.model.filter_bands:
        raise ValueError(
            f"a batch of {cfg.batch} cannot be shared by {cfg.model.filter_bands} bands"
        )

    def learns(name: str) -> bool:
        return not name.startswith(FIXED)

    state = (CapturedRun if device.type == "cuda" else PartRun)(cfg, device, learns)
    for model in (state.model, state.ema.module):
        assert isinstance(model, Codec)
        scales_to_host(model)
    model = state.model.to(memory_format=torch.channels_last)
    model.set_quantised(True)
    model.hard = model.filter.in_order = True
    model.filter.start(cfg.quantised_filter)
    return state


def run(cfg: TrainConfig, device: torch.device) -> None:
    """Train until the last step or the time limit."""
    state = open_run(cfg, device)
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    crops = DeviceCrops(tiles, device, cfg.seed, cfg.synthetic_share > 0)
    if cfg.quantised_filter and state.model.filter.lacks_ranges():
        watch(state.model, batches(crops, cfg, 2**31), cfg)
    state.train(loss, batches(crops, cfg, state.step))


@click.command()
@part_options
def main(**options: Any) -> None:
    """Train prior, predictor and filters together on coded crops."""
    cfg, _, device = part_arguments(**options)
    run(cfg, device)


if __name__ == "__main__":
    main()
