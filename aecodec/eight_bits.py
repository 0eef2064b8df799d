"""The filter's inner convolutions in 8 bits, in PyTorch: what ONNX Runtime's operators compute.

Activations are integers 0..255 with a scale and a zero point per point, weights are integers
with a scale per row. Integers are held in float32, whose sums of them are exact here. Where a
ReLU follows, the zero point is 0 and cutting off does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any  # torch.Tensor, which is not imported here
LEVELS = 255


class EightBitFilter:
    """tensor(name, dtype) gives the model's tensors; see `aecodec.training.filter`."""

    def __init__(self, torch: Any, tensor: Callable[[str, Any], Tensor]) -> None:
        self._torch, self._tensor = torch, tensor
        points = tensor("filter.points", torch.float32)
        self._scale, self._zero = points[:, 0], points[:, 1]

    def run(self, a: Tensor, layers: Sequence[str], blocks: Sequence[str]) -> Tensor:
        """a (1,C,h,w) through the named convolutions and residual blocks, same shape."""
        at = 0
        a = self._to(a, at)
        for name in layers:
            a = self._convolve(a, name, at, at + 1)
            at += 1
        for name in blocks:
            b = self._convolve(a, f"{name}.w1", at, at + 1)
            b = self._convolve(b, f"{name}.w2", at + 1, at + 2)
            a = self._to(self._value(a, at) + self._value(b, at + 2), at + 3)
            at += 3
        return self._value(a, at)

    def _to(self, value: Tensor, point: int) -> Tensor:
        """Integers 0..255 of real values."""
        whole = self._torch.round(value / self._scale[point]) + self._zero[point]
        return whole.clamp(0, LEVELS)

    def _value(self, whole: Tensor, point: int) -> Tensor:
        return (whole - self._zero[point]) * self._scale[point]

    def _convolve(self, whole: Tensor, name: str, source: int, target: int) -> Tensor:
        float32 = self._torch.float32
        weight, bias, scale = (
            self._tensor(f"{name}.{part}", float32) for part in ("weight", "bias", "weight_scale")
        )
        total = self._torch.nn.functional.conv2d(
            whole - self._zero[source], weight, bias, padding=1
        )
        factor = self._scale[source] * scale / self._scale[target]
        out = self._torch.round(total * factor[:, None, None]) + self._zero[target]
        return out.clamp(0, LEVELS)
