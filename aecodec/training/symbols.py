"""Symbols of the latent: how residuals become integers, and what these cost.

A residual r (in quantisation steps) with scale index i becomes the integer k that is best for
rate and distortion. The rate of k is that of a Gaussian of the index's deviation plus a
correction per index and |k|: residuals are more peaked than a Gaussian, and the dead zone
empties the bins next to zero. The correction is counted on coded training pictures (`Tally`),
not learned by gradients, and frozen into the released tables.
"""

from __future__ import annotations

import math

import torch
from compressai.entropy_models import GaussianConditional
from compressai.ops import LowerBound
from torch import Tensor, nn

SCALE_MIN, SCALE_MAX, SCALE_LEVELS = 0.11, 256.0, 64
SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_LEVELS - 1)
MEAN_UNITS = 16  # means and values, in quantisation steps, are multiples of 1/16
BINS = 9  # corrections for |k| = 0, 1, ... 7 and for all larger ones together
DEEPEST = 16  # symbols from here on are simply rounded: their tables are nearly flat
SQUARED_STEP_BITS = 26 / 3  # what an error of one squared step is worth, in bits


class SymbolModel(nn.Module):
    """Frozen statistics of symbols; everything is elementwise on tensors of one shape."""

    correction: Tensor

    def __init__(self, silent: int = 0) -> None:
        super().__init__()
        self.silent = silent  # the last scale level at which nothing but 0 is coded
        self.register_buffer("correction", torch.zeros(SCALE_LEVELS, BINS))  # in bits
        self.gaussian = GaussianConditional(None)
        self.index_floor = LowerBound(0.0)

    def gaussian_bits(self, r: Tensor, index: Tensor, noise: bool) -> Tensor:
        """-log2 of the Gaussian probability of the unit interval around r (or r + noise)."""
        with torch.autocast(r.device.type, enabled=False):
            index = self.index_floor(index.float()).clamp_max(SCALE_LEVELS - 1.0)
            scales = SCALE_MIN * torch.exp(index * SCALE_STEP)
            _, likelihood = self.gaussian(r.float(), scales, training=noise)
            return -torch.log2(likelihood)

    def bits(self, k: Tensor, index: Tensor) -> Tensor:
        """Bits of symbols k at (continuous) scale indices; the gradient goes to the index.

        Linear between whole indices. The gradient is that of the mean over one index, half to
        either side: files have whole ones, and to the right of these alone it would be too low, for
        bits are convex, which makes indices drift upwards.
        """
        i = self.index_floor(index.float()).clamp_max(SCALE_LEVELS - 1.0)
        with torch.no_grad():
            first = torch.floor(i - 0.5)
            a, b, c = (self._bits_at(k, first + n) for n in range(3))
            share = i - 0.5 - first
            below, above = torch.lerp(a, b, share + 0.5), torch.lerp(b, c, share - 0.5)
            value = torch.where(share < 0.5, below, above)
            slope = torch.lerp(b, c, share) - torch.lerp(a, b, share)
        return value + slope * (i - i.detach())

    def _bits_at(self, k: Tensor, index: Tensor) -> Tensor:
        """Bits of symbols k at whole scale indices, those out of range as the nearest."""
        index = index.clamp(0.0, SCALE_LEVELS - 1.0)
        at = index.long() * BINS + k.abs().clamp_max(BINS - 1.0).long()
        return (self.gaussian_bits(k, index, False) + self.correction.flatten()[at]).clamp_min(0.0)

    def smooth_cost(self, r: Tensor, index: Tensor) -> Tensor:
        """What residuals r cost beyond a residual of 0, in bits, with a gradient that says it.

        Squared up to one step (what is left at 0 is an error, of about as many bits), linear
        between the bits of whole symbols beyond. index: whole scale indices.
        """
        size = r.abs().clamp_max(DEEPEST + 0.999)
        k = size.detach().floor()
        with torch.no_grad():
            zero, low, high = (self._bits_at(v, index) for v in (torch.zeros_like(k), k, k + 1))
        share = size - k
        share = torch.where(k == 0, share.square(), share)
        return low - zero + (high - low) * share

    @torch.no_grad()
    def shifts(self) -> Tensor:
        """(levels, DEEPEST + 1): how far above k - 1/2 a residual must lie to be coded as k."""
        index = torch.arange(SCALE_LEVELS, device=self.correction.device).float()[:, None]
        k = torch.arange(DEEPEST + 1.0, device=index.device)[None].expand(SCALE_LEVELS, -1)
        bits = self._bits_at(k.contiguous(), index.expand_as(k).contiguous())
        out = torch.zeros_like(bits)
        out[:, 1:-1] = bits.diff(dim=1)[:, :-1].clamp_min(0.0) / (2 * SQUARED_STEP_BITS)
        return out

    @torch.no_grad()
    def choose(self, r: Tensor, index: Tensor, strength: float | Tensor) -> Tensor:
        """Symbols of residuals r as `aecodec.quantise` chooses them.

        strength: of the dead zone, one for all or of a shape that r's agrees with; 0 only rounds.
        """
        size = r.float().abs()
        k = torch.round(size)
        i = index.round().clamp(0.0, SCALE_LEVELS - 1.0).long()
        if isinstance(strength, Tensor) or strength:
            shift = self.shifts().flatten()[i * (DEEPEST + 1) + k.clamp_max(DEEPEST).long()]
            k = k - (size < k - 0.5 + (shift * strength).clamp_max(0.5)).float()
        if not self.training:  # the certain zero; in training its errors must show in the rate
            k = k * (i > self.silent)
        return torch.copysign(k, r)


class Tally:
    """Counts of the symbols of coded pictures, by scale index and size."""

    def __init__(self) -> None:
        self.counts = torch.zeros(SCALE_LEVELS * BINS, dtype=torch.float64)

    def add(self, k: Tensor, index: Tensor, coded: Tensor) -> None:
        """Take in symbols and their indices where `coded` is not 0."""
        which = coded.expand_as(k) > 0
        i = index[which].round().clamp(0, SCALE_LEVELS - 1).long()
        at = i * BINS + k[which].abs().clamp_max(BINS - 1).long()
        self.counts += torch.bincount(at.cpu(), minlength=SCALE_LEVELS * BINS)

    def fit(self, model: SymbolModel, weight: float = 200.0) -> None:
        """Set the corrections; `weight` counts stand for the plain Gaussian."""
        gauss = gaussian_bins()
        counts = self.counts.view(SCALE_LEVELS, BINS)
        share = (counts + weight * gauss) / (counts.sum(1, keepdim=True) + weight)
        model.correction.copy_(torch.log2(gauss) - torch.log2(share))


def gaussian_bins() -> Tensor:
    """(levels, BINS) probabilities of |k| = 0, 1, ... and the rest under the plain Gaussians."""
    sigma = SCALE_MIN * torch.exp(torch.arange(SCALE_LEVELS, dtype=torch.float64) * SCALE_STEP)
    edges = torch.arange(BINS, dtype=torch.float64) - 0.5
    beyond = torch.erfc(edges / (sigma[:, None] * math.sqrt(2)))  # on both sides
    beyond[:, 0] = 1.0
    bins = beyond - torch.cat([beyond[:, 1:], torch.zeros(SCALE_LEVELS, 1)], 1)
    # The floor that likelihoods have in training keeps impossible symbols codable.
    return bins.clamp_min(2e-9)
