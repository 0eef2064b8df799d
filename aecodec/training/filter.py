"""The filter after the synthesis, and its arithmetic in 8 bits.

Coding noise and block edges look the same everywhere in a picture, so a few small kernels at
half resolution learn from every position what 16x16 blocks would have to learn 256 times.

Its inner convolutions are released in 8 bits: activations 0..255 with a scale and a zero
point per tensor ("point"), weights -63..63 with a scale per output channel. Seven bits of
weight keep sums of two products within 16 bits, which some processors add in. The first
convolution, at picture precision, stays in floating point. The last is in 8 bits with
`filter_last_eight`: what the filter adds is then in steps of a third of a level or so, a tenth
of a coding error. A plain ReLU is free in 8 bits: values below the zero point are cut off anyway.

The scale of quality is cut into bands of equal width, and each has a filter of its own: noise of
coarse steps wants other kernels than that of fine ones, and a decoder runs one of them only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aecodec.training.config import Config
from aecodec.training.layers import QualityVectors, fake_whole, per_row, whole_weights

LEVELS = 255
LEAST_FACTOR = 0.01  # of a quality on a channel: a positive one commutes with the first ReLU
SLOPE = 0.1  # of the leaky ReLU after the first convolution


class FilterBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, which it starts as."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.w1 = nn.Conv2d(c, c, 3, padding=1)
        self.w2 = nn.Conv2d(c, c, 3, padding=1)
        nn.init.zeros_(self.w2.weight)
        nn.init.zeros_(self.w2.bias)


class FilterBank(nn.Module):
    """One `Filter` for each band of quality."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.bands = nn.ModuleList([Filter(cfg) for _ in range(cfg.filter_bands)])
        self.only = -1  # the one band that every sample goes through, while that one trains
        self.in_order = False  # equally many samples for each band, one band after the other

    def __iter__(self) -> Iterator[Filter]:
        for band in self.bands:
            assert isinstance(band, Filter)
            yield band

    def learning(self) -> list[Filter]:
        """The filters that samples go through."""
        return [band for number, band in enumerate(self) if self.only in (-1, number)]

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x (B,3,H,W) in units of 64 levels, quality (B,) -> correction, same units."""
        if self.in_order:
            chunks = (values.chunk(len(self.bands)) for values in (x, quality))
            return torch.cat([band(*part) for band, *part in zip(self, *chunks, strict=True)])
        which = self.band(quality)
        if len(which.unique()) == 1:
            only: Tensor = self.bands[int(which[0])](x, quality)
            return only
        out = torch.zeros_like(x)
        for number, band in enumerate(self.bands):
            rows = torch.nonzero(which == number)[:, 0]
            if len(rows):
                out = out.index_add(0, rows, band(x[rows], quality[rows]).to(out.dtype))
        return out

    def band(self, quality: Tensor) -> Tensor:
        """Number (B,) of the band that qualities (B,) in 0..100 belong to."""
        if self.only >= 0:
            return torch.full_like(quality, self.only, dtype=torch.long)
        count = len(self.bands)
        return (quality * count / 100.0).long().clamp_max(count - 1)

    @torch.no_grad()
    def watch(self, passes: Iterable[object], outliers: float) -> None:
        """Set the 8-bit ranges from what activations are in some forward passes, and use them.

        passes: runs a pass for each of its items. outliers: the share of an activation's values at
        each end that its 8 bits cut off.
        """
        learning = self.learning()
        for band in learning:
            band.quantised, band.watching, band.outliers = False, True, outliers
            band.seen = [0] * len(band.low)
        for _ in passes:
            pass
        for band in learning:
            band.watching = False
        self.set_quantised(True)

    def start(self, eight_bits: bool) -> None:
        """Begin to train, in 8 bits or not; without them weights leave their ranges behind."""
        if not eight_bits:
            for band in self.learning():
                band.forget_ranges()
        self.set_quantised(eight_bits)

    def lacks_ranges(self) -> bool:
        """Whether a filter that learns has no 8-bit ranges yet."""
        return not all(band.high.any() for band in self.learning())

    def set_quantised(self, on: bool) -> None:
        """Compute in 8 bits, those bands of which the ranges are known."""
        for band in self:
            band.quantised = on and bool(band.high.any())


class Filter(nn.Module):
    """Residual 3x3 convolutions at half resolution on the synthesised picture.

    Points, in order: the input of the inner convolutions; the output of every layer; of every
    block its two convolutions' outputs and the sum; the correction, if the last convolution is in
    8 bits. They are set by `watch`, and with
    `quantised` values go through them (gradients straight through, none beyond the ends).
    """

    low: Tensor
    high: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        c, layers, blocks = cfg.F, cfg.filter_layers, cfg.filter_blocks
        self.factors = QualityVectors(torch.ones(cfg.anchors, c))
        self.first = nn.Conv2d(12, c, 3, padding=1)
        self.layers = nn.ModuleList([nn.Conv2d(c, c, 3, padding=1) for _ in range(layers)])
        self.blocks = nn.ModuleList([FilterBlock(c) for _ in range(blocks)])
        self.last = nn.Conv2d(c, 12, 3, padding=1)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)
        self.last_eight = cfg.filter_last_eight
        points = 1 + layers + 3 * blocks + self.last_eight
        self.register_buffer("low", torch.zeros(points))  # least and greatest value of a point
        self.register_buffer("high", torch.zeros(points))
        self.slope = cfg.filter_slope  # of the inner convolutions' leaky ReLU; 0 for 8 bits
        self.quantised, self.watching, self.outliers = False, False, 0.0
        self.seen = [0] * points

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x (B,3,H,W) in units of 64 levels, quality (B,) -> correction, same units."""
        factors = self.factors(quality).clamp_min(LEAST_FACTOR)
        a = F.leaky_relu(self.first(F.pixel_unshuffle(x, 2)) * factors, SLOPE)
        a, point = self._at(a, 0), 1
        for layer in self.layers:
            a = self._at(F.leaky_relu(self._inner(layer, a), self.slope), point)
            point += 1
        for block in self.blocks:
            b = self._at(F.leaky_relu(self._inner(block.w1, a), self.slope), point)
            b = self._at(self._inner(block.w2, b), point + 1)
            a = self._at(a + b, point + 2)
            point += 3
        if self.last_eight:
            return F.pixel_shuffle(self._at(self._inner(self.last, a), point), 2)
        return F.pixel_shuffle(self.last(a), 2)

    def forget_ranges(self) -> None:
        """Have no 8-bit ranges, until they are watched anew."""
        self.low.zero_()
        self.high.zero_()

    def sources(self) -> dict[str, int]:
        """The point that each inner convolution reads, by the convolution's name."""
        out, point = {}, 0
        for i in range(len(self.layers)):
            out[f"layers.{i}"] = point
            point += 1
        for i in range(len(self.blocks)):
            out |= {f"blocks.{i}.w1": point, f"blocks.{i}.w2": point + 1}
            point += 3
        return out | ({"last": point} if self.last_eight else {})

    def scales(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point (an integer 0..255) of every point."""
        scale = ((self.high - self.low) / LEVELS).clamp_min(1e-6)
        return scale, torch.round(-self.low / scale).clamp(0, LEVELS)

    def _at(self, a: Tensor, point: int) -> Tensor:
        if self.watching:
            sample = a.detach().float().flatten()[:: max(1, a.numel() // 2**18)]
            self.seen[point] += 1  # ends are means over what was seen
            ends = torch.quantile(sample, sample.new_tensor([self.outliers, 1 - self.outliers]))
            low, high = ends.to(self.low.device)
            self.low[point] += (low.clamp_max(0.0) - self.low[point]) / self.seen[point]
            self.high[point] += (high.clamp_min(0.0) - self.high[point]) / self.seen[point]
        if not self.quantised:
            return a
        scale, zero = self.scales()
        with torch.autocast(a.device.type, enabled=False):
            zeros = int(zero[point])
            return fake_whole(a.float(), float(scale[point]), -zeros, LEVELS - zeros)

    def _inner(self, conv: nn.Module, a: Tensor) -> Tensor:
        assert isinstance(conv, nn.Conv2d)
        if not self.quantised:
            out: Tensor = conv(a)
            return out
        whole, scale = whole_weights(conv.weight)
        weight = conv.weight + (whole * per_row(scale, whole) - conv.weight).detach()
        return F.conv2d(a, weight, conv.bias, padding=1)
