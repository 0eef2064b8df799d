"""Stages of training: what stays fixed in each, and the counts between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from aecodec.training.config import TrainConfig
from aecodec.training.data import Pixels, sample_batch
from aecodec.training.eight import choose, points
from aecodec.training.model import Codec
from aecodec.training.planned import planned
from aecodec.training.predictor import smaller
from aecodec.training.symbols import Tally

WATCHED = 6  # batches from which the prior's 8-bit scales are chosen


def load_start(model: Codec, path: Path) -> None:
    """Weights to start from; what the model has more of leaves their function as it is.

    That is: more blocks of the filter start as identities, more bands of quality with the filter
    of all, larger kernels with zeros outside, more channels of the filter unheard. A predictor may
    be larger than the model's, which then takes what fits. Raises ValueError for a file with other
    parts than the model's.
    """
    state = load_file(path)
    one_for_all = "filter.bands.1.low" not in state and len(model.filter.bands) > 1
    wider = len(state["filter.bands.0.first.bias"]) < model.cfg.F
    for name in [name for name in state if name.startswith("filter.bands.")]:
        # Ranges of another filter say nothing; they are watched anew, see `watch`.
        ranges = name.endswith((".low", ".high"))
        if ranges and (one_for_all or wider or state[name].shape != model.get_buffer(name).shape):
            del state[name]
        elif one_for_all:
            for band in range(1, len(model.filter.bands)):
                state[name.replace(".0.", f".{band}.", 1)] = state[name].clone()
    if wider:
        _widen_filter(model, state)
    if model.predictor is not None:
        state = smaller(state, model.cfg)
    for name, p in model.named_parameters():
        if name.endswith(".dw.conv.weight") and name in state:
            margin = (p.shape[-1] - state[name].shape[-1]) // 2
            state[name] = F.pad(state[name], (margin,) * 4)
    load_parts(model, state, str(path))


def _widen_filter(model: Codec, state: dict[str, Tensor]) -> None:
    """Give the filters of `state` the channels of the model's.

    New channels start as the model's do, at random, and the others do not hear them.
    """
    for name, p in model.filter.named_parameters(prefix="filter"):
        old, new = state[name], p.detach().clone()
        if old.shape == new.shape:
            continue
        if new.dim() == 4:
            new[: len(old)] = 0.0
            new[: len(old), : old.shape[1]] = old
        else:  # biases, and factors of qualities
            new[..., : old.shape[-1]] = old
        state[name] = new


def load_parts(model: Codec, state: dict[str, Tensor], source: str) -> None:
    """Load what `state` holds of a model; the rest stays.

    Raises ValueError, naming the source, for parts that the model does not have.
    """
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{source}: not weights of this model: {', '.join(unknown[:3])} ...")


@torch.no_grad()
def choose_points(model: Codec, tiles: Pixels, cfg: TrainConfig) -> None:
    """Put the prior into 8 bits: the scales of its points from how `model` codes some crops."""
    seen = points(model.prior)
    for point in seen:
        point.seen = []
    model.eval()
    for i in range(WATCHED):
        _code_crops(model, tiles, cfg, [cfg.seed, 78, i])
    model.train()
    stream = model.prior.stream()
    for group in (stream, *([point] for point in seen if point not in stream)):
        choose(group)


def _code_crops(
    model: Codec, tiles: Pixels, cfg: TrainConfig, seed: list[int], encoder: str = ""
) -> None:
    """Code a batch of crops at random qualities, for what is seen meanwhile.

    encoder: released weights that say what to code (`aecodec.training.planned`), "" for `model`.
    """
    rng, device = np.random.default_rng(seed), model.s.device
    x, grey = sample_batch(tiles, rng, cfg.batch, cfg.crop, cfg.grey_share)
    quality = torch.from_numpy(rng.random(len(x), np.float32) * 100)
    if not encoder:
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        model.coded_latent(x, quality.to(device), grey.to(device))
        return
    found, quality = planned(model, encoder, x, quality, grey), quality.to(device)
    coded = torch.where(grey.to(device)[:, None], model.grey_mask, 1.0)[..., None, None]
    y = found.y * torch.exp(-model.log_gain(quality))
    with torch.autocast(device.type, enabled=False):  # the integer grid is finer than bfloat16
        model.code_latent(y, found.z, quality, coded, found.strength[..., None, None])


def freeze_analysis(model: Codec) -> None:
    """Keep the latent y fixed, so that everything else can train on truly rounded symbols."""
    for module in (model.g_a, model.q_a8, model.q_a16):
        if module is not None:
            module.requires_grad_(False)
    model.linear_a.requires_grad_(False)
    model.log_gain.requires_grad_(False)


def freeze_synthesis(model: Codec) -> None:
    """Train h_a, h_s and the prior alone: linear path and filter stay, and are not run."""
    for module in (model.g_s, model.q_s8, model.q_s16, model.filter):
        if module is not None:
            module.requires_grad_(False)
    for p in (model.linear_s, model.linear_bias, model.log_inverse.anchors):
        p.requires_grad_(False)
    model.with_filter = False


@torch.no_grad()
def fit_symbols(
    model: Codec, tiles: Pixels, cfg: TrainConfig, batches: int, encoder: str = ""
) -> None:
    """Count how `model` codes training crops, and set its corrections from that.

    encoder: released weights that say what to code, as they do for files; "" for `model`.
    """
    before, model.hard, model.tally = model.hard, True, Tally()
    model.eval()
    for i in range(batches):
        _code_crops(model, tiles, cfg, [cfg.seed, 77, i], encoder)
    model.tally.fit(model.symbols)
    model.hard, model.tally = before, None
    model.train()
