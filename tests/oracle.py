"""The exact networks in NumPy int64: slow, obvious, and independent of any runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Int64 = npt.NDArray[np.int64]
LOW, HIGH = -1024, 1023
STEP_PHASES = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))  # docs/format.md


class IntegerNetworks:
    """h_s and the prior of a model folder, integer by integer (see aecodec.training.graphs)."""

    def __init__(self, folder: Path) -> None:
        self.tensors = load_file(folder / "model.safetensors")

    def exact(self, x: Int64, name: str, kind: str, residual: Int64 | int = 0) -> Int64:
        parts = [self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "multiplier")]
        weight, bias = parts[0].astype(np.int64), parts[1].astype(np.int64)
        shift = -np.log2(parts[2].astype(np.float64))
        assert np.array_equal(shift, np.rint(shift))
        assert np.array_equal(bias, parts[1])
        total = convolved(x, weight)
        total += bias[:, None, None]
        down = np.maximum(shift, 0).astype(np.int64)[:, None, None]
        up = np.maximum(-shift, 0).astype(np.int64)[:, None, None]
        out = ((total << up) >> down) + residual
        if kind == "out":
            return out
        return np.clip(out, 0 if kind == "relu" else LOW, HIGH)

    def block(self, x: Int64, name: str) -> Int64:
        a = self.exact(self.exact(x, f"{name}.w1", "relu"), f"{name}.dw", "sum")
        x = self.exact(a, f"{name}.w2", "sum", x)
        return self.exact(self.exact(x, f"{name}.w3", "relu"), f"{name}.w4", "sum", x)

    def powers(self, name: str) -> list[int]:
        """The exponents of powers of two."""
        mantissa, exponent = np.frexp(self.tensors[name].astype(np.float64))
        assert np.all(mantissa == 0.5)
        return [int(e) - 1 for e in exponent]

    def layer8(self, x: Int64, name: str, source: int, target: int, relu: bool = False,
               step: int | None = None, offset: Any = 0) -> Int64:  # fmt: skip
        parts = [self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "weight_scale")]
        weight, bias, scale = parts if step is None else [part[step] for part in parts]
        total = convolved(x, weight.astype(np.int64))
        total += (bias.astype(np.int64) + offset)[:, None, None]
        mantissa, exponent = np.frexp(scale.astype(np.float64))
        assert np.all(mantissa == 0.5)
        shift = exponent.astype(np.int64)[:, None, None] - 1 + source - target
        return clip8(half_to_even(total, shift), relu)

    def block8(self, a: Int64, name: str, points: list[int]) -> Int64:
        source, w1, dw, w2, sum1, w3, w4, sum2 = points
        b = self.layer8(a, f"{name}.w1", source, w1, relu=True)
        b = self.layer8(b, f"{name}.dw", w1, dw)
        assert source == w2 == sum1 == w4 == sum2  # residual sums round nothing
        a = clip8(a + self.layer8(b, f"{name}.w2", dw, w2))
        b = self.layer8(a, f"{name}.w3", sum1, w3, relu=True)
        return clip8(a + self.layer8(b, f"{name}.w4", w3, w4))

    def hyper_synthesis(self, z: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        a = self.block(self.exact(z[0].astype(np.int64), "h_s.stem", "sum"), "h_s.block1")
        a = self.block(shuffle2(self.exact(a, "h_s.up1", "sum")), "h_s.block2")
        return shuffle2(self.exact(a, "h_s.up2", "sum"))[None].astype(np.float32)

    def prior(
        self, step: int, context: npt.NDArray[np.float32], common: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        points = self.powers("prior.points")
        a = np.concatenate([context[0], common[0]]).astype(np.int64)
        a = clip8(half_to_even(a, -6 - points[0]))
        a, at, i = self.layer8(a, "prior.enter", points[0], points[1], step=step), 1, 0
        while f"prior.blocks.{i}.w1.weight" in self.tensors:
            a = self.block8(a, f"prior.blocks.{i}", points[at : at + 8])
            at, i = at + 7, i + 1
        a = a << (points[at] + 6)
        mean, scale = (self.exact(a, f"prior.{name}", "out") for name in ("mean", "scale"))
        return coded(mean, step), coded(scale, step)

    def predictor(
        self, step: int, latent: npt.NDArray[np.float32], mean: npt.NDArray[np.float32],
        offset: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.float32]:  # fmt: skip
        own, u = f"predictor.{step}", latent[0].astype(np.int64)
        lap = self.tensors["predictor.lap"].astype(np.int64)
        picture = cut(self.exact(u, "predictor.picture", "out"))
        a = parts(lapped(unshuffled(picture), lap.T), 2)
        powers, zeros = self.powers(f"{own}.points"), self.tensors[f"{own}.zeros"]
        a = clip8(half_to_even(a, -9 - powers[0]))
        a = self.layer8(a, f"{own}.first", powers[0], powers[1], relu=True, offset=offset)
        at, i = 1, 0
        while f"{own}.layers.{i}.weight" in self.tensors:
            a = self.layer8(a, f"{own}.layers.{i}", powers[at], powers[at + 1], relu=True)
            at, i = at + 1, i + 1
        i = 0
        while f"{own}.blocks.{i}.w1.weight" in self.tensors:
            b = self.layer8(a, f"{own}.blocks.{i}.w1", powers[at], powers[at + 1], relu=True)
            b = self.layer8(b, f"{own}.blocks.{i}.w2", powers[at + 1], powers[at + 2])
            assert powers[at] == powers[at + 2] == powers[at + 3]
            assert zeros[at + 2] == zeros[at + 3] == 128
            a, at, i = clip8(a + b), at + 3, i + 1
        a = self.layer8(a, f"{own}.last", powers[at], powers[at + 1])
        a = cut(a << (powers[at + 1] + 9))
        a = parts(lapped(from_parts(a), lap), 16)
        return mean + coded(self.exact(a, f"{own}.back", "out"), step)


def coded(x: Int64, step: int) -> npt.NDArray[np.float32]:
    """What a step codes of (M,h,w), quarter by quarter: (4,M/4,h/2 * w/2)."""
    quarters = [
        x[quarter::4, phase // 2 :: 2, phase % 2 :: 2].reshape(len(x) // 4, -1)
        for quarter, phase in enumerate(STEP_PHASES[step])
    ]
    return np.stack(quarters).astype(np.float32)


def half_to_even(x: Int64, power: Int64 | int) -> Int64:
    """x * 2^power, rounded; a fraction of just one half goes to the even neighbour."""
    up, down = np.maximum(power, 0), np.maximum(-np.asarray(power), 0)
    x, unit = x << up, np.int64(1) << down
    below = x >> down
    rest = x - below * unit
    return below + ((2 * rest > unit) | ((2 * rest == unit) & (below % 2 == 1)))


def clip8(x: Int64, relu: bool = False) -> Int64:
    return np.clip(x, 0, 255) if relu else np.clip(x, -128, 127)


def convolved(x: Int64, weight: Int64) -> Int64:
    """x (C,h,w) by weights (O,C), depthwise by (C,1,k,k), or by kernels (O,C,3,3)."""
    if weight.ndim == 2:
        return np.einsum("oi,ihw->ohw", weight, x)
    if weight.shape[1] == 1:
        return depthwise(x, weight[:, 0])
    h, w = x.shape[1:]
    p = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    # Products of doubles are exact here, and BLAS is much faster than int64.
    total = sum(
        weight[:, :, i, j].astype(float) @ p[:, i : i + h, j : j + w].reshape(len(x), -1)
        for i in range(3)
        for j in range(3)
    )
    return total.astype(np.int64).reshape(-1, h, w)


def depthwise(x: Int64, weight: Int64) -> Int64:
    """Depthwise convolution with zero padding; x (C,h,w), weight (C,k,k)."""
    h, w = x.shape[1:]
    side = weight.shape[-1]
    p = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2))
    return sum(
        weight[:, i, j, None, None] * p[:, i : i + h, j : j + w]
        for i in range(side)
        for j in range(side)
    )


def cut(picture: Int64) -> Int64:
    """A picture's samples in 1/8 of a level, clipped."""
    return np.clip(picture, -2048, 2047)


def lapped(x: Int64, matrix: Int64) -> Int64:
    """The lapped filter on the 16 samples astride every block edge: rows, then columns."""
    for _ in range(2):
        inner = x[..., 8:-8]
        sums = inner.reshape(*inner.shape[:2], -1, 16) @ matrix.T
        x = x.copy()
        x[..., 8:-8] = cut((sums + 512) >> 10).reshape(inner.shape)
        x = x.transpose(0, 2, 1)
    return x


def unshuffled(x: Int64) -> Int64:
    """Pixel-shuffle by 16: (256 C,h,w) -> (C,16h,16w)."""
    h, w = x.shape[1:]
    return x.reshape(-1, 16, 16, h, w).transpose(0, 3, 1, 4, 2).reshape(-1, 16 * h, 16 * w)


def parts(x: Int64, side: int) -> Int64:
    """(C,H,W) -> (C side^2,H/side,W/side): position by position, each with its colours."""
    h, w = x.shape[1] // side, x.shape[2] // side
    split = x.reshape(-1, h, side, w, side).transpose(2, 4, 0, 1, 3)
    return split.reshape(-1, h, w)


def from_parts(x: Int64) -> Int64:
    """The inverse of `parts` for 2."""
    h, w = x.shape[1:]
    return x.reshape(2, 2, -1, h, w).transpose(2, 3, 0, 4, 1).reshape(-1, 2 * h, 2 * w)


def shuffle2(x: Int64) -> Int64:
    """Pixel-shuffle by 2: (4C,h,w) -> (C,2h,2w)."""
    c, h, w = x.shape[0] // 4, x.shape[1], x.shape[2]
    return x.reshape(c, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c, 2 * h, 2 * w)
