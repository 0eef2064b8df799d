"""The exact networks in NumPy int64: slow, obvious, and independent of any runtime."""

from __future__ import annotations

from pathlib import Path

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

    def exact(self, x: Int64, name: str, kind: str, residual: Int64 | int = 0,
              step: int | None = None) -> Int64:  # fmt: skip
        parts = [self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "multiplier")]
        if step is not None:
            parts = [part[step] for part in parts]
        weight, bias = parts[0].astype(np.int64), parts[1].astype(np.int64)
        shift = -np.log2(parts[2].astype(np.float64))
        assert np.array_equal(shift, np.rint(shift))
        assert np.array_equal(bias, parts[1])
        if weight.ndim == 2:
            total = np.einsum("oi,ihw->ohw", weight, x)
        else:
            total = depthwise(x, weight[:, 0])
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

    def hyper_synthesis(self, z: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        a = self.block(self.exact(z[0].astype(np.int64), "h_s.stem", "sum"), "h_s.block1")
        a = self.block(shuffle2(self.exact(a, "h_s.up1", "sum")), "h_s.block2")
        return shuffle2(self.exact(a, "h_s.up2", "sum"))[None].astype(np.float32)

    def prior(
        self, step: int, context: npt.NDArray[np.float32], common: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        a = self.exact(common[0].astype(np.int64), "prior.from_common", "sum", step=step)
        a = self.exact(context[0].astype(np.int64), "prior.from_context", "sum", a, step)
        i = 0
        while f"prior.blocks.{i}.w1.weight" in self.tensors:
            a = self.block(a, f"prior.blocks.{i}")
            i += 1
        mean, scale = (self.exact(a, f"prior.{name}", "out") for name in ("mean", "scale"))
        return coded(mean, step), coded(scale, step)


def coded(x: Int64, step: int) -> npt.NDArray[np.float32]:
    """What a step codes of (M,h,w), quarter by quarter: (4,M/4,h/2 * w/2)."""
    quarters = [
        x[quarter::4, phase // 2 :: 2, phase % 2 :: 2].reshape(len(x) // 4, -1)
        for quarter, phase in enumerate(STEP_PHASES[step])
    ]
    return np.stack(quarters).astype(np.float32)


def depthwise(x: Int64, weight: Int64) -> Int64:
    """3x3 depthwise convolution with zero padding; x (C,h,w), weight (C,3,3)."""
    h, w = x.shape[1:]
    p = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return sum(
        weight[:, i, j, None, None] * p[:, i : i + h, j : j + w] for i in range(3) for j in range(3)
    )


def shuffle2(x: Int64) -> Int64:
    """Pixel-shuffle by 2: (4C,h,w) -> (C,2h,2w)."""
    c, h, w = x.shape[0] // 4, x.shape[1], x.shape[2]
    return x.reshape(c, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c, 2 * h, 2 * w)
