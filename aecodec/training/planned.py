"""What an encoder means to code in crops: latents before they are rounded, and how they will be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aecodec.effort import DEFAULT, LEVELS
from aecodec.model import open_model
from aecodec.search import plan
from aecodec.tile import LATENT, code_tile
from aecodec.training.model import Codec
from aecodec.weights import id_of
from aecodec.window import Window


class Planned(NamedTuple):
    """Of a batch: y (B,M,h,w) in quantisation steps, z (B,Z,h/4,w/4), the strength (B,M) of the
    dead zone that rounds y, and y_hat (B,M,h,w) in natural units, what decoders have of it.
    """

    y: Tensor
    z: Tensor
    strength: Tensor
    y_hat: Tensor


def planned(model: Codec, encoder: str, x: Tensor, quality: Tensor, grey: Tensor) -> Planned:
    """Of crops x (B,3,H,W) 0..255 at qualities (B,), grey (B,) bool; without gradients.

    encoder: name or id of released weights that plan with all that the default effort does, "" for
    `model`, which rounds its latents by its own dead zone.
    """
    device = model.s.device
    with torch.no_grad():
        if encoder:
            rows = zip(x, quality.tolist(), grey.tolist(), strict=True)
            found = zip(*(_by_release(encoder, *row) for row in rows), strict=True)
            return Planned(*(torch.stack(column).to(device) for column in found))
        return _by_model(model, x.to(device), quality.to(device), grey.to(device))


def _by_model(model: Codec, x: Tensor, quality: Tensor, grey: Tensor) -> Planned:
    y = model.analysis(x, quality).contiguous(memory_format=torch.channels_last)
    z_hat, _ = model.hyper(y, quality)
    coded = torch.where(grey[:, None], model.grey_mask, 1.0)
    y_hat, _ = model.code_latent(y, z_hat, quality, coded[..., None, None])
    strength = torch.full_like(coded, model.deadzone)
    return Planned(y * torch.exp(model.log_gain(quality)), z_hat, strength, y_hat)


def _by_release(encoder: str, x: Tensor, quality: float, grey: bool) -> Planned:
    """One crop x (3,H,W); without the axis of a batch."""
    model = open_model(id_of(encoder), torch.get_num_threads())
    pixels = x.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
    hundredths = round(quality * 100)
    u = model.networks.analysis(pixels, hundredths)
    height, width = pixels.shape[:2]
    rows, columns = slice(0, height // LATENT), slice(0, width // LATENT)
    window = Window(pixels, u, rows, columns, height, width)
    wanted = plan(model, window, hundredths, grey, LEVELS[DEFAULT])
    y_hat = code_tile(model, wanted, hundredths, grey).y_hat
    y = wanted.u * model.at(hundredths, grey).steps_per_u().astype(np.float32)[:, None, None]
    strength = np.broadcast_to(np.float32(wanted.strength), (len(y),))
    parts = (y, wanted.opening.z.astype(np.float32), strength.copy(), y_hat)
    return Planned(*(torch.from_numpy(part) for part in parts))
