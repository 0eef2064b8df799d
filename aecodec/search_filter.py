"""The filter in 8 bits with a gradient that is cheap to have.

PyTorch's own gradients would keep every value between the filter's convolutions, half a gigabyte
for a picture of 0.4 megapixels, and most of the time would go into writing and reading them. All
that the gradient depends on is which activations were cut off, and that is all that is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aecodec.eight_bits import LEVELS, EightBitFilter

Tensor = Any  # torch.Tensor, which is not imported here


class SearchFilter(EightBitFilter):
    """`EightBitFilter` for one run: equal values; rounding passes gradients on.

    torch: PyTorch itself or what stands for it; tensor, own: as there.
    """

    def __init__(self, torch: Any, tensor: Callable[[str, Any], Tensor], own: str) -> None:
        super().__init__(torch, tensor, own)
        self._inside: list[Tensor] = []  # of every activation in turn: was it not cut off?

    def run(self, a: Tensor, layers: Sequence[str], blocks: Sequence[str]) -> Tensor:
        """a (1,C,h,w) through the named convolutions and residual blocks, same shape."""
        forward = super().run
        torch: Any = self._torch

        class Run(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(_: Any, x: Tensor) -> Tensor:
                # Convolutions of few channels are a third faster with channels last.
                x = x.contiguous(memory_format=torch.channels_last)
                return forward(x, layers, blocks).contiguous()

            @staticmethod
            def backward(_: Any, slope: Tensor) -> Tensor:
                return self._gradient(slope, layers, blocks)

        return Run.apply(a)

    def _gradient(self, slope: Tensor, layers: Sequence[str], blocks: Sequence[str]) -> Tensor:
        """What `run` does, backwards, for real values: their scales are part of the weights."""
        slope = slope.contiguous(memory_format=self._torch.channels_last)
        for name in reversed(blocks):
            slope = self._passed(slope)
            inner = self._before(self._passed(slope), f"{name}.w2")
            slope += self._before(self._passed(inner), f"{name}.w1")
        for name in reversed(layers):
            slope = self._before(self._passed(slope), name)
        return self._passed(slope).contiguous()

    def _cut(self, whole: Tensor) -> Tensor:
        # As `clamp` passes gradients on.
        self._inside.append((whole > 0).logical_and_(whole < LEVELS))
        return super()._cut(whole)

    def _passed(self, slope: Tensor) -> Tensor:
        return slope * self._inside.pop()

    def _before(self, slope: Tensor, name: str) -> Tensor:
        weight, scale = (
            self._tensor(f"{name}.{part}", self._torch.float32)
            for part in ("weight", "weight_scale")
        )
        real = weight * scale[:, None, None, None]
        return self._torch.nn.functional.conv_transpose2d(slope, real, padding=1)
