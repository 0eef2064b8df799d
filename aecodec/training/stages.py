"""Stages of training: what stays fixed in each, and the counts between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from aecodec.training.config import TrainConfig
from aecodec.training.data import Pixels, sample_batch
from aecodec.training.model import Codec
from aecodec.training.symbols import Tally


def load_start(model: Codec, path: Path) -> None:
    """Weights to start from; blocks of the filter beyond the file's start as identities."""
    state = load_file(path)
    for name in ("filter.low", "filter.high"):  # ranges are watched anew, see `watch`
        if name in state and state[name].shape != model.get_buffer(name).shape:
            del state[name]
    model.load_state_dict(state, strict=False)


def freeze_analysis(model: Codec) -> None:
    """Keep the latent y fixed, so that everything else can train on truly rounded symbols."""
    for module in (model.g_a, model.q_a8, model.q_a16):
        if module is not None:
            module.requires_grad_(False)
    model.linear_a.requires_grad_(False)
    model.log_gain.requires_grad_(False)


def freeze_synthesis(model: Codec) -> None:
    """Train h_a, h_s and the prior alone: linear path and filter stay, and are not run."""
    for module in (model.g_s, model.q_s8, model.q_s16, model.filter, model.q_filter):
        if module is not None:
            module.requires_grad_(False)
    for p in (model.linear_s, model.linear_bias, model.log_inverse.anchors):
        p.requires_grad_(False)
    model.with_filter = False


@torch.no_grad()
def fit_symbols(model: Codec, tiles: Pixels, cfg: TrainConfig, batches: int) -> None:
    """Count how `model` codes training crops, and set its corrections and offsets from that."""
    device = model.s.device
    before, model.hard, model.tally = model.hard, True, Tally()
    model.eval()
    for i in range(batches):
        rng = np.random.default_rng([cfg.seed, 77, i])
        x, grey = sample_batch(tiles, rng, cfg.batch, cfg.crop, cfg.grey_share)
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        quality = torch.from_numpy(rng.random(len(x), np.float32) * 100).to(device)
        model(x, quality, grey.to(device))
    model.tally.fit(model.symbols)
    model.hard, model.tally = before, None
    model.train()
