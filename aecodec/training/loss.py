"""The rate-distortion loss: bits per pixel + lambda x MSE, weighted over the rate range."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aecodec.training.config import Config
from aecodec.training.model import Output


class Loss(NamedTuple):
    """Scalar to minimise; bpp and mse (255^2 scale) are per sample (B,)."""

    total: Tensor
    bpp: Tensor
    mse: Tensor


def rate_distortion(out: Output, x: Tensor, quality: Tensor, cfg: Config) -> Loss:
    """Mean over samples of w * (bpp + lambda * MSE), x (B,3,H,W) in 0..255.

    w = (lambda / lambda_mid)^-1/2 keeps samples of high rate, whose cost grows about as
    sqrt(lambda), from owning the gradient.
    """
    pixels = x.shape[2] * x.shape[3]
    bpp = (out.bits_y + out.bits_z) / pixels
    mse = (out.x_hat.float() - x).square().flatten(1).mean(1)
    log_lambda = cfg.log_lambda(quality)
    log_mid = 0.5 * (math.log(cfg.lambda_min) + math.log(cfg.lambda_max))
    weight = torch.exp(-0.5 * (log_lambda - log_mid))
    total = (weight * (bpp + torch.exp(log_lambda) * mse)).mean()
    return Loss(total, bpp, mse)


def psnr(mse: Tensor) -> Tensor:
    """dB for 8-bit peak from mean squared errors on the 0..255 scale."""
    return 10.0 * torch.log10(255.0**2 / mse.clamp_min(1e-6))
