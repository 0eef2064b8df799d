"""How far a picture is from another in the structure that eyes see: SSIMULACRA 2, differentiable.

In XYB colours and at five scales it compares local means, variances and edges; luma from the
finest scale on, chroma where it is seen. Source: SSIMULACRA 2.1 by Jon Sneyers, in libjxl;
its weights below 0.1 are left out, edges are mirrored, and nothing but RGB is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

X, Y, B = 0, 1, 2
_MIXED = ((0.3, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342269, 0.20476744, 0.55180987))
_BIAS = 0.0037930732552754493  # of the three mixed colours, before their cube root
_FLAT = 0.0009  # variances far below it do not count
_SIGMA, _RADIUS = 1.5, 5  # of the window, in pixels of each scale
_TINY = 1e-16  # keeps the fourth root's slope finite where nothing differs


class _Weights(NamedTuple):
    """What the maps of a channel at a scale weigh: their means, and fourth roots of mean powers."""

    ssim: float = 0.0
    ssim_peaks: float = 0.0
    new_peaks: float = 0.0  # edges that only the other picture has: ringing, blocks
    new: float = 0.0
    lost_peaks: float = 0.0  # edges that it lacks: blur
    lost: float = 0.0


# From the finest scale to 1/16 of it.
_SCALES: tuple[dict[int, _Weights], ...] = (
    {Y: _Weights(ssim_peaks=7.466890, lost_peaks=17.445834)},
    {X: _Weights(ssim_peaks=1.104173), Y: _Weights(ssim_peaks=6.683678, lost_peaks=1.027890)},
    {X: _Weights(ssim_peaks=1.842246, new_peaks=11.441173),
     Y: _Weights(ssim=225.205153, ssim_peaks=19.213238)},
    {X: _Weights(ssim_peaks=1.878759, new_peaks=10.949069),
     Y: _Weights(ssim=176.393176, ssim_peaks=24.433010, new_peaks=0.285208),
     B: _Weights(ssim_peaks=8.826983, new_peaks=23.192433)},
    {X: _Weights(new=0.967794, new_peaks=0.998177),
     Y: _Weights(ssim_peaks=34.779063, new_peaks=44.835626),
     B: _Weights(ssim=95.108050, new=0.986398, new_peaks=171.266726, lost=0.983438,
                 lost_peaks=0.980786)},
)  # fmt: skip


def structural_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """(B,): 100 - SSIMULACRA 2 of x_hat (B,3,H,W) for the original x, in 0..255, sides >= 96.

    About 10 where hardly anybody sees a difference, 30 in a good picture, 70 in a poor one.
    """
    linear_hat, linear = _linear(x_hat), _linear(x)
    total = torch.zeros(len(x), device=x.device)
    for scale, weights in enumerate(_SCALES):
        if scale:
            linear_hat, linear = (F.avg_pool2d(part, 2) for part in (linear_hat, linear))
        channels = list(weights)
        seen_hat, seen = (_xyb(part)[:, channels] for part in (linear_hat, linear))
        total = total + _error(seen_hat, seen, [weights[channel] for channel in channels])
    total = total * 0.9562382616834844
    score = 2.326765642916932 * total - 0.020884521182843837 * total**2
    score = score + 6.248496625763138e-05 * total**3
    return 10.0 * score.clamp_min(1e-3) ** 0.6276336467831387


def _error(x_hat: Tensor, x: Tensor, weights: list[_Weights]) -> Tensor:
    """(B,): the weighted sum of what the maps of the channels of one scale say."""
    count = x.shape[1]
    mean, square = _blurred(torch.cat([x, x * x], 1)).split(count, 1)
    around = _blurred(torch.cat([x_hat, x_hat * x_hat, x_hat * x], 1))
    mean_hat, square_hat, product = around.split(count, 1)
    shared = 2 * (product - mean_hat * mean) + _FLAT
    spread = (square_hat - mean_hat**2) + (square - mean**2) + _FLAT
    ssim = (1 - (1 - (mean_hat - mean) ** 2) * shared / spread).clamp_min(0)
    edges = (1 + (x_hat - mean_hat).abs()) / (1 + (x - mean).abs()) - 1
    new, lost = edges.clamp_min(0), (-edges).clamp_min(0)
    table = torch.tensor(weights, device=x.device)  # (channels, fields of _Weights)
    maps = (_mean(ssim), _peaks(ssim), _peaks(new), _mean(new), _peaks(lost), _mean(lost))
    return (torch.stack(maps, 2) * table).sum((1, 2))


def _mean(values: Tensor) -> Tensor:
    return values.mean((2, 3))


def _peaks(values: Tensor) -> Tensor:
    return (values.pow(4).mean((2, 3)) + _TINY) ** 0.25


def _linear(x: Tensor) -> Tensor:
    """Light of sRGB values 0..255; those beyond are clipped."""
    x = x.clamp(0.0, 255.0) / 255.0
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0.04) + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    """(B,3,H,W) of light -> X, Y and B - Y, scaled and moved to be positive."""
    matrix = torch.tensor(_MIXED, device=linear.device)
    mixed = F.conv2d(linear, matrix[:, :, None, None]) + _BIAS
    red, green, blue = (mixed ** (1 / 3) - _BIAS ** (1 / 3)).unbind(1)
    x, y = 0.5 * (red - green), 0.5 * (red + green)
    return torch.stack([x * 14 + 0.42, y + 0.01, blue - y + 0.55], 1)


def _blurred(x: Tensor) -> Tensor:
    """Gaussian means around every pixel of (B,C,H,W)."""
    away = torch.arange(-_RADIUS, _RADIUS + 1, device=x.device)
    window = torch.exp(-(away**2) / (2 * _SIGMA**2))
    window, count = window / window.sum(), x.shape[1]
    x = F.pad(x, (_RADIUS,) * 4, mode="reflect")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        x = F.conv2d(x, window.reshape(shape).expand(count, -1, -1, -1), groups=count)
    return x
