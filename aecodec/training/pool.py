"""Coded crops for training the synthesis alone: what it starts from, and what it should restore.

Crops are coded by the network that is trained, with one choice of symbols, or by released weights
as `aecodec compress` codes them, with all that the default effort does: then the filter learns to
restore what it will be given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aecodec.features import latents
from aecodec.training.config import TrainConfig
from aecodec.training.data import Pixels
from aecodec.training.model import Codec
from aecodec.training.part import crops
from aecodec.training.precision import half_pays

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
def code_pool(model: Codec, tiles: Pixels, cfg: TrainConfig, count: int, encoder: str = "") -> Pool:
    """`count` crops at qualities spread evenly, coded with real symbols.

    encoder: name or id of released weights that code them, "" for `model`.
    """
    model.eval()
    model.hard, device = True, model.s.device
    made: list[Tensor] = []  # filled row by row: parts and their whole would be held twice
    start = 0
    for x, quality, grey in crops(tiles, cfg, [cfg.seed, 4], count, quality_ends(cfg)):
        if encoder:
            rows = zip(x, quality.tolist(), grey.tolist(), strict=True)
            source = torch.stack([encoded(encoder, *row) for row in rows]).to(device)
        else:
            with torch.autocast(device.type, torch.bfloat16, enabled=half_pays(device)):
                source = model.coded_latent(x.to(device), quality.to(device), grey.to(device))
        if filter_alone(model):
            source = model.linear_synthesis(source)
        batch = (source.half().cpu(), x.to(torch.uint8), quality)
        if not made:
            whole = -(-count // len(x)) * len(x)
            made = [_rows(whole, part, half_pays(device)) for part in batch]
        for column, part in zip(made, batch, strict=True):
            column[start : start + len(part)] = part
        start += len(x)
    return Pool(*made)


def _rows(count: int, like: Tensor, last: bool) -> Tensor:
    """An empty tensor of so many rows; last: pictures and latents have their channels last."""
    layout = torch.channels_last if last and like.dim() == 4 else torch.contiguous_format
    return torch.empty((count, *like.shape[1:]), dtype=like.dtype, memory_format=layout)


def encoded(model: str, x: Tensor, quality: float, grey: bool) -> Tensor:
    """y_hat (M,h,w) in natural units of x (3,H,W) 0..255, as a file of a released model has it."""
    pixels = x.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
    if grey:
        pixels = np.ascontiguousarray(pixels[..., 0])
    threads = torch.get_num_threads()
    return torch.from_numpy(latents(pixels, quality, threads=threads, model=model))


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
