"""The predictor in PyTorch: whole numbers held in floating point (docs/format.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aecodec.eight_bits import LEVELS
from aecodec.prior import (
    LAP_BITS,
    PICTURE_MAX,
    PICTURE_MIN,
    PICTURE_UNITS,
    STEP_PHASES,
)

Tensor = Any  # torch.Tensor, which is not imported here


class TorchPredictor:
    """The predictor at one step.

    tensor(name) gives the model's tensors in the type to compute in; sums(x, weight, bias) a
    convolution; exact(x, name, kind, rows=...) an exact layer.
    """

    def __init__(
        self, torch: Any, tensor: Callable[[str], Tensor], sums: Callable[..., Tensor],
        exact: Callable[..., Tensor], step: int,
    ) -> None:  # fmt: skip
        self._torch, self._tensor, self._sums, self._exact = torch, tensor, sums, exact
        self._step, self._own = step, f"predictor.{step}"
        self._scale, self._zero = (tensor(f"{self._own}.{part}") for part in ("points", "zeros"))

    def run(self, latent: Tensor, mean: Tensor, offset: Tensor, layers: int, blocks: int) -> Tensor:
        """latent (1,M,h,w), means (4,M/4,n), offset (C,) -> better means (4,M/4,n)."""
        torch, shuffle = self._torch, self._torch.pixel_shuffle
        matrix = self._tensor("predictor.lap")
        picture = self._cut(self._exact(latent, "predictor.picture", "out"))
        picture = self._lap(shuffle(picture, 16), matrix.T)
        missing = self._network(parts_of(torch, picture, 2), offset, layers, blocks)
        missing = self._lap(whole_of(torch, missing, 2), matrix)
        return mean + torch.cat(self._back(parts_of(torch, missing, 16))).flatten(2)

    def _network(self, a: Tensor, offset: Tensor, layers: int, blocks: int) -> Tensor:
        """The convolutions, on parts (1,4C,H/2,W/2)."""
        a = self._layer(self._to(a / PICTURE_UNITS, 0), "first", 0, 1, offset)
        at = 1
        for i in range(layers):
            a = self._layer(a, f"layers.{i}", at, at + 1)
            at += 1
        for i in range(blocks):
            b = self._layer(a, f"blocks.{i}.w1", at, at + 1)
            b = self._layer(b, f"blocks.{i}.w2", at + 1, at + 2)
            a = self._limited(a + b, at + 3)  # one scale
            at += 3
        a = self._layer(a, "last", at, at + 1)
        return self._cut(a * (self._scale[at + 1] * PICTURE_UNITS))

    def _layer(self, a: Tensor, name: str, source: int, target: int, offset: Any = 0) -> Tensor:
        weight, bias, scale = (
            self._tensor(f"{self._own}.{name}.{part}")
            for part in ("weight", "bias", "weight_scale")
        )
        total = self._sums(a, weight, bias + offset)
        return self._to(total * (self._scale[source] * scale)[:, None, None], target)

    def _to(self, value: Tensor, point: int) -> Tensor:
        """Integers of 8 bits, rounded half to even, of real values."""
        return self._limited(self._torch.round(value / self._scale[point]), point)

    def _limited(self, whole: Tensor, point: int) -> Tensor:
        zero = self._zero[point]
        return (whole + zero).clamp(0, LEVELS) - zero

    def _back(self, parts: Tensor) -> list[Tensor]:
        """What to add to the means, quarter by quarter, of the picture's 16x16 blocks."""
        return [
            self._exact(
                parts[:, :, phase // 2 :: 2, phase % 2 :: 2], f"{self._own}.back", "out",
                rows=slice(quarter, None, 4),
            )
            for quarter, phase in enumerate(STEP_PHASES[self._step])
        ]  # fmt: skip

    def _cut(self, picture: Tensor) -> Tensor:
        return picture.clamp(PICTURE_MIN, PICTURE_MAX)

    def _lap(self, x: Tensor, matrix: Tensor) -> Tensor:
        """The lapped filter in integers, rounded and clipped after rows and after columns."""
        floor = self._torch.floor
        return lapped(self._torch, x, matrix, lambda v: self._cut(floor(v * 2.0**-LAP_BITS + 0.5)))


def lapped(
    torch: Any, x: Tensor, matrix: Tensor, after: Callable[[Tensor], Tensor] = lambda v: v
) -> Tensor:
    """Multiply the 16 samples astride every block edge of (1,C,H,W), along rows, then columns.

    after: what is then done with the products of either.
    """
    for _ in range(2):
        inner = x[..., 8:-8]
        products = after(inner.reshape(*inner.shape[:3], -1, 16) @ matrix.T)
        x = torch.cat([x[..., :8], products.reshape(inner.shape), x[..., -8:]], -1)
        x = x.transpose(2, 3)
    return x


def parts_of(torch: Any, x: Tensor, side: int) -> Tensor:
    """(1,C,H,W) -> (1,C side^2,H/side,W/side): the positions of cells, each with its colours."""
    parts = torch.pixel_unshuffle(x, side)
    return parts.unflatten(1, (-1, side**2)).transpose(1, 2).flatten(1, 2)


def whole_of(torch: Any, parts: Tensor, side: int) -> Tensor:
    """The inverse of `parts_of`."""
    parts = parts.unflatten(1, (side**2, -1)).transpose(1, 2).flatten(1, 2)
    return torch.pixel_shuffle(parts, side)
