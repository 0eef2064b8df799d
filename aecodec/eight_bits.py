"""The prior and the filter in 8 bits, in PyTorch: what ONNX Runtime's operators compute.

Activations are integers with a scale per tensor ("point"), weights are integers with a scale per
row. Integers are held in floating point, whose sums of them are exact here. Where a ReLU follows,
cutting off at 0 does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aecodec.prior import UNITS

Tensor = Any  # torch.Tensor, which is not imported here
LEVELS = 255
BLOCK_POINTS = 7  # of a block of the prior


class EightBitFilter:
    """The filter of one band; see `aecodec.training.filter`.

    tensor(name, dtype) gives the model's tensors, `own` is what the band's names begin with.
    Works in place where it can, without gradients: most of its time goes to memory.
    """

    def __init__(self, torch: Any, tensor: Callable[[str, Any], Tensor], own: str) -> None:
        self._torch, self._tensor = torch, tensor
        points = tensor(f"{own}.points", torch.float32)
        self._scale, self._zero = points[:, 0], points[:, 1]

    def run(
        self, a: Tensor, layers: Sequence[str], blocks: Sequence[str], last: str = "",
        last_weight: Tensor = None,
    ) -> Tensor:  # fmt: skip
        """a (1,C,h,w) through the named convolutions and residual blocks, and `last` if given.

        last_weight: in place of its own, if not None.
        """
        at = 0
        a = self._to(a, at)
        for name in layers:
            a = self._convolve(a, name, at, at + 1)
            at += 1
        for name in blocks:
            b = self._convolve(a, f"{name}.w1", at, at + 1)
            b = self._convolve(b, f"{name}.w2", at + 1, at + 2)
            a = self._to(self._value(a, at).add_(self._value(b, at + 2)), at + 3)
            at += 3
        if last:
            a, at = self._convolve(a, last, at, at + 1, last_weight), at + 1
        return self._value(a, at)

    def _to(self, value: Tensor, point: int) -> Tensor:
        """Integers 0..255 of real values."""
        return self._cut((value / self._scale[point]).round_().add_(self._zero[point]))

    def _cut(self, whole: Tensor) -> Tensor:
        return whole.clamp_(0, LEVELS)

    def _value(self, whole: Tensor, point: int) -> Tensor:
        return (whole - self._zero[point]).mul_(self._scale[point])

    def _convolve(
        self, whole: Tensor, name: str, source: int, target: int, other: Tensor = None
    ) -> Tensor:
        float32 = self._torch.float32
        weight, bias, scale = (
            self._tensor(f"{name}.{part}", float32) for part in ("weight", "bias", "weight_scale")
        )
        weight = weight if other is None else other.to(float32)
        total = self._torch.nn.functional.conv2d(
            whole - self._zero[source], weight, bias, padding=1
        )
        factor = self._scale[source] * scale / self._scale[target]
        return self._cut(total.mul_(factor[:, None, None]).round_().add_(self._zero[target]))


class EightBitPrior:
    """The prior up to its last layers; see `aecodec.training.eight`.

    tensor(name) gives the model's tensors in the type to compute in; sums(x, weight, bias) a 1x1
    or depthwise convolution. Scales are powers of two, so every product with one is exact.
    """

    def __init__(
        self, torch: Any, tensor: Callable[[str], Tensor], sums: Callable[..., Tensor]
    ) -> None:
        self._torch, self._tensor, self._sums = torch, tensor, sums
        self._scale = tensor("prior.points")

    def run(self, a: Tensor, step: int, blocks: int) -> Tensor:
        """Context and common (1,C,h,w), integers in 1/64, to activations (1,W,h,w), likewise."""
        a = self._to(a / UNITS, 0)
        a, at = self._layer(a, "prior.enter", 0, 1, step=step), 1
        for i in range(blocks):
            name = f"prior.blocks.{i}"
            b = self._layer(a, f"{name}.w1", at, at + 1, relu=True)
            b = self._layer(b, f"{name}.dw", at + 1, at + 2)
            b = self._layer(b, f"{name}.w2", at + 2, at + 3)
            a = (a + b).clamp(-128, 127)  # one scale
            b = self._layer(a, f"{name}.w3", at + 4, at + 5, relu=True)
            b = self._layer(b, f"{name}.w4", at + 5, at + 6)
            a = (a + b).clamp(-128, 127)
            at += BLOCK_POINTS
        return a * (self._scale[at] * UNITS)

    def _to(self, value: Tensor, point: int, relu: bool = False) -> Tensor:
        """Integers of 8 bits, rounded half to even, of real values."""
        whole = self._torch.round(value / self._scale[point])
        return whole.clamp(0, LEVELS) if relu else whole.clamp(-128, 127)

    def _layer(
        self, a: Tensor, name: str, source: int, target: int, relu: bool = False,
        step: int | None = None,
    ) -> Tensor:  # fmt: skip
        parts = [self._tensor(f"{name}.{part}") for part in ("weight", "bias", "weight_scale")]
        weight, bias, scale = parts if step is None else (part[step] for part in parts)
        total = self._sums(a, weight, bias)
        return self._to(total * (self._scale[source] * scale)[:, None, None], target, relu)
