"""The prior's layers in 8-bit products, exact by construction.

Activations are whole numbers of 8 bits (0..255 behind a ReLU, else -128..127) times a power of
two, one per tensor ("point"). Weights are whole numbers -63..63 times a power of two per output
channel; 7 bits keep sums of two products within 16 bits, which some processors add in. Every sum
stays below 2^24, where float32 holds whole numbers exactly, and the step to the next point is a
product with a power of two, rounded half to even: each runtime computes the same numbers.

A residual sum adds whole numbers of one scale, without any rounding: some libraries round halves in
such sums to even, some away from zero.

Before `choose` has set a point's scale everything runs in floating point; after that, forward
passes compute what the released file computes, with straight-through gradients.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aecodec.training.layers import (
    EXACT_SUM,
    LIMIT,
    TOP,
    WEIGHT_MAX,
    Convolution,
    Depthwise,
    Pointwise,
    convolution,
    fake_whole,
    per_row,
    whole_weights,
)

FINEST, COARSEST = -6, -3  # powers of two: whole numbers of the exact path's 1/64, up to +-16
SAMPLE = 2**16  # values of an activation that are looked at


class Point(nn.Module):
    """Where activations become whole numbers; the buffer `scale` is 0 until it is chosen."""

    scale: Tensor

    def __init__(self, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.low, self.high = (0, 255) if relu else (-128, 127)
        self.register_buffer("scale", torch.zeros(()))
        self.seen: list[Tensor] | None = None  # while watching

    def forward(self, x: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen.append(x.detach().float().flatten()[:: max(1, x.numel() // SAMPLE)])
        if not self.scale:
            return F.hardtanh(x, 0.0 if self.relu else -LIMIT, TOP)
        with torch.autocast(x.device.type, enabled=False):
            return self._whole(x.float(), float(self.scale))

    def _whole(self, x: Tensor, scale: float) -> Tensor:
        return fake_whole(x, scale, self.low, self.high)

    def errors(self, scales: list[float]) -> Tensor:
        """Squared error, on what was seen, with each scale."""
        assert self.seen
        x = torch.cat(self.seen)
        target = x.clamp(-LIMIT, LIMIT)
        return torch.stack([(self._whole(x, scale) - target).square().sum() for scale in scales])


def choose(group: list[Point], finest: int = FINEST) -> None:
    """Give the points the power of two, one for all, with the least error on what was seen."""
    scales = [2.0**e for e in range(finest, COARSEST + 1)]
    total = torch.stack([point.errors(scales) for point in group]).sum(0)
    for point in group:
        point.scale.fill_(scales[int(total.argmin())])
        point.seen = None


def convolve(conv: Convolution, x: Tensor, source: Point) -> Tensor:
    """`conv` of what `source` gave, with the weights and biases of the released file."""
    w, b = conv.weight, conv.bias
    if source.scale:
        whole, scale = whole_weights(w, powers=True)
        unit = scale * source.scale
        w = w + (whole * per_row(scale, w) - w).detach()
        b = b + (torch.round(b / unit) * unit - b).detach()
    return convolution(x, w, b)


class EightConv(nn.Module):
    """A convolution and the point of its output."""

    def __init__(self, conv: Convolution, relu: bool = False) -> None:
        super().__init__()
        self.conv, self.point = conv, Point(relu)

    def forward(self, x: Tensor, source: Point) -> Tensor:
        out: Tensor = self.point(convolve(self.conv, x, source))
        return out


class EightBlock(nn.Module):
    """The block of the prior: `aecodec.training.layers.Block` with clipped ReLUs and sums."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.w1, self.dw = EightConv(Pointwise(c, c), True), EightConv(Depthwise(c, k))
        self.w2, self.sum1 = EightConv(Pointwise(c, c, 0.2)), Point()
        self.w3 = EightConv(Pointwise(c, 2 * c), True)
        self.w4, self.sum2 = EightConv(Pointwise(2 * c, c, 0.2)), Point()

    def forward(self, x: Tensor, source: Point) -> Tensor:
        a = self.dw(self.w1(x, source), self.w1.point)
        x = self.sum1(x + self.w2(a, self.dw.point))
        out: Tensor = self.sum2(x + self.w4(self.w3(x, self.sum1), self.w3.point))
        return out

    def stream(self) -> list[Point]:
        """The points that residual sums add and give: these have one scale."""
        return [self.w2.point, self.sum1, self.w4.point, self.sum2]

    def layers(self, source: Point) -> list[tuple[str, EightConv, Point]]:
        """Name and convolution of each layer, and the point that it reads."""
        return [
            ("w1", self.w1, source), ("dw", self.dw, self.w1.point), ("w2", self.w2, self.dw.point),
            ("w3", self.w3, self.sum1), ("w4", self.w4, self.w3.point),
        ]  # fmt: skip


def points(module: nn.Module) -> list[Point]:
    """The points of a module in the order of its computation."""
    return [m for m in module.modules() if isinstance(m, Point)]


def check_exact(whole: Tensor, bias: Tensor, source: Point) -> None:
    """Raise ValueError unless a layer's sums are exact in float32 and its rounding in any."""
    if math.frexp(float(source.scale))[0] != 0.5:
        raise ValueError("the prior's 8-bit scales are not chosen: see `eight_bit_prior`")
    worst = whole.abs().flatten(1).sum(1) * max(source.high, -source.low) + bias.abs()
    if worst.max() >= EXACT_SUM or whole.abs().max() > WEIGHT_MAX:
        raise ValueError(f"exact layer out of bounds: sum {worst.max():.0f}")
