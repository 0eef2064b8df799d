"""Layers: floating-point blocks of the transforms, and the exact layers of h_s and prior.

An exact layer is a 1x1 or depthwise convolution whose weights and activations are
integers in the released file: see `fake_fixed` and docs/determinism.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor, nn

GRID = 64  # integer units per 1.0 on the exact path
LIMIT = 16.0  # activations of the exact path are clipped to [-LIMIT, LIMIT - 1/GRID]
TOP = LIMIT - 1 / GRID
EXACT_SUM = 2**24  # float32 adds integers exactly below this
WEIGHT_MAX = 63  # of 8-bit products: a sum of two fits in 16 bits, which some processors add in


def ste_round(x: Tensor) -> Tensor:
    """Round with the gradient of the identity (straight-through estimator)."""
    return x + (torch.round(x) - x).detach()


class _Whole(torch.autograd.Function):
    """`torch.fake_quantize_per_tensor_affine`, which takes four times as long on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        whole = (x * (1 / scale)).round_()
        ctx.save_for_backward((whole >= low) & (whole <= high))
        return whole.clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None


def fake_whole(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """x (any shape, float32) as whole numbers low..high times scale; no gradient beyond these."""
    if x.is_cuda:  # one kernel there
        return torch.fake_quantize_per_tensor_affine(x, scale, 0, low, high)
    out: Tensor = _Whole.apply(x, scale, low, high)
    return out


def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 by a matrix (out,in), depthwise by kernels (C,1,k,k), or full by (out,in,k,k).

    Zero padding.
    """
    if weight.dim() == 2:
        return F.conv2d(x, weight[:, :, None, None], bias)
    groups = len(weight) if weight.shape[1] == 1 else 1
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)


def per_row(values: Tensor, weight: Tensor) -> Tensor:
    """values (C,) in a shape that goes with weight (C,...)."""
    return values.view(-1, *(1,) * (weight.dim() - 1))


def whole_weights(weight: Tensor, powers: bool = False) -> tuple[Tensor, Tensor]:
    """Weights (C,...) as integers -63..63 (in floating point) and the scale (C,) of each row.

    powers: take the next larger power of two as scale.
    """
    scale = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-8) / WEIGHT_MAX
    if powers:
        scale = 2.0 ** torch.ceil(torch.log2(scale))
    return torch.round(weight.detach() / per_row(scale, weight)), scale


class Pointwise(nn.Module):
    """1x1 convolution; the weight is a matrix so that Muon can take it."""

    def __init__(self, c_in: int, c_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) * (gain / math.sqrt(c_in)))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight, self.bias)


class Depthwise(nn.Module):
    """Depthwise convolution (side `k`, odd), zero padding, starting near the identity."""

    def __init__(self, c: int, k: int = 3) -> None:
        super().__init__()
        weight = torch.randn(c, 1, k, k) * (0.45 / k)
        weight[:, :, k // 2, k // 2] += 0.7
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight, self.bias)


class Kernel(nn.Module):
    """3x3 convolution, zero padding."""

    def __init__(self, c_in: int, c_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3) * (gain / math.sqrt(9 * c_in)))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight, self.bias)


class Block(nn.Module):
    """Residual depthwise block, then residual feed-forward; (B,C,H,W) -> (B,C,H,W)."""

    def __init__(self, c: int, expand: int = 2) -> None:
        super().__init__()
        self.w1, self.dw, self.w2 = Pointwise(c, c), Depthwise(c), Pointwise(c, c, 0.2)
        self.w3, self.w4 = Pointwise(c, expand * c), Pointwise(expand * c, c, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.w2(self.dw(F.leaky_relu(self.w1(x), 0.1)))
        return x + self.w4(F.leaky_relu(self.w3(x), 0.1))


Convolution = Pointwise | Depthwise | Kernel


def fake_fixed(weight: Tensor, bias: Tensor, limit: float, grid_out: int) -> tuple[Tensor, ...]:
    """Integer version of one exact layer: (w_int, b_int, shift) as float64 tensors.

    The layer computes floor((sum w_int * a_int + b_int) * 2^-shift + 1/2) with a_int in units
    of 1/GRID. Per output channel the shift is the largest for which every partial sum stays
    below 2^24 when |a| <= limit, so float32 adds exactly in any order.
    """
    w = weight.detach().double().flatten(1)
    b = bias.detach().double()
    a_max = limit * GRID
    room = EXACT_SUM * 0.9  # the rest is for the rounding of weights; export checks the sums
    bound = w.abs().sum(1) * a_max + b.abs() * GRID + 1e-12
    log2 = torch.floor(torch.log2(room / bound)).clamp(0, 20)
    w_int = torch.round(w * (2**log2)[:, None])
    b_int = torch.round(b * GRID * 2**log2)
    shift = log2 + math.log2(GRID / grid_out)
    return w_int.reshape(weight.shape), b_int, shift


class Exact(nn.Module):
    """A convolution of the exact path with its clip; float in training, fake-quantised on demand.

    ``kind`` 'relu' clips to [0, 16), 'sum' to [-16, 16) (after adding a residual, if given),
    'out' leaves the range open (the last layer). ``quantised`` switches to values on the
    integer grid with straight-through gradients, which is what the exported file computes.
    ``limit`` bounds the inputs; outputs are in units of 1/``grid``.
    """

    def __init__(
        self, conv: Convolution, kind: str, grid: int = GRID, limit: float = LIMIT
    ) -> None:
        super().__init__()
        self.conv, self.kind, self.grid, self.limit = conv, kind, grid, limit
        self.quantised = False

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = self._convolve_on_grid(x) if self.quantised else self.conv(x)
        if residual is not None:
            out = out + residual
        if self.kind == "out":
            return out
        # hardtanh is clamp with a gradient in one pass
        return F.hardtanh(out, 0.0 if self.kind == "relu" else -LIMIT, TOP)

    def _convolve_on_grid(self, x: Tensor) -> Tensor:
        conv = self.conv
        w_int, b_int, shift = fake_fixed(conv.weight, conv.bias, self.limit, self.grid)
        scale = 2 ** (shift - math.log2(GRID / self.grid))
        shape = (-1,) + (1,) * (conv.weight.dim() - 1)
        w = conv.weight + ((w_int / scale.view(shape)).float() - conv.weight).detach()
        b = conv.bias + ((b_int / scale / GRID).float() - conv.bias).detach()
        out = convolution(x, w, b)
        grid = float(self.grid)
        return out + (torch.floor(out * grid + 0.5) / grid - out).detach()


class ExactBlock(nn.Module):
    """The block of the exact path: clipped ReLU instead of leaky ReLU, clipped sums."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.w1 = Exact(Pointwise(c, c), "relu")
        self.dw = Exact(Depthwise(c), "sum")
        self.w2 = Exact(Pointwise(c, c, 0.2), "sum")
        self.w3 = Exact(Pointwise(c, 2 * c), "relu")
        self.w4 = Exact(Pointwise(2 * c, c, 0.2), "sum")

    def forward(self, x: Tensor) -> Tensor:
        x = self.w2(self.dw(self.w1(x)), x)
        return self.w4(self.w3(x), x)


class QualityVectors(nn.Module):
    """One vector per quality anchor, interpolated linearly between the two nearest."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.anchors = nn.Parameter(start)  # (K, C)

    def forward(self, quality: Tensor) -> Tensor:
        """quality (B,) in 0..100 -> (B, C, 1, 1)."""
        t = quality / 100.0 * (self.anchors.shape[0] - 1)
        i = t.floor().clamp(0, self.anchors.shape[0] - 2).long()
        f = (t - i)[:, None]
        v = self.anchors[i] * (1 - f) + self.anchors[i + 1] * f
        return v[:, :, None, None]


class Bottleneck(EntropyBottleneck):
    """CompressAI's factorised prior, in a forward pass that never waits for a GPU.

    CompressAI keeps the order of axes on the device and asks for it in every pass, which a step
    that is recorded (`aecodec.training.captured`) may not do.
    """

    def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """x (B,C,h,w) -> what is decoded, and its likelihood; same shape."""
        training = self.training if training is None else training
        columns = x.transpose(0, 1)
        values = columns.reshape(len(columns), 1, -1)
        noisy = self.quantize(values, "noise" if training else "dequantize", self._get_medians())
        likelihood, _, _ = self._likelihood(noisy)
        likelihood = self.likelihood_lower_bound(likelihood)
        out, lik = (v.reshape(columns.shape).transpose(0, 1) for v in (noisy, likelihood))
        return out, lik


def cell_planes(y: Tensor) -> Tensor:
    """(B,4,h,w): one-hot position of each element in its 2x2 cell."""
    planes = y.new_zeros(4, y.shape[2], y.shape[3])
    for p in range(4):
        planes[p, p // 2 :: 2, p % 2 :: 2] = 1.0
    planes = planes.expand(y.shape[0], -1, -1, -1)
    return planes.contiguous(memory_format=torch.channels_last)
