"""Single layers and tables as the released file holds them, and the order of its channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aecodec.entropy import PRECISION
from aecodec.training.eight import Point, check_exact
from aecodec.training.layers import (
    EXACT_SUM,
    GRID,
    LIMIT,
    Convolution,
    fake_fixed,
    whole_weights,
)

Array = npt.NDArray[Any]


def to_numpy(tensor: Tensor, dtype: str = "float32") -> Array:
    """A tensor as an array of a type."""
    return tensor.detach().cpu().double().numpy().astype(dtype)


def frequencies(pmf: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Integers of at least 1 that sum to 2^24, close to pmf (any positive sum)."""
    total = 1 << PRECISION
    counts = np.floor(pmf / pmf.sum() * (total - len(pmf))).astype(np.int64) + 1
    counts[np.argmax(counts)] += total - counts.sum()
    if counts.min() < 1 or counts.sum() != total:
        raise ValueError("frequency table does not sum to 2^24")
    return counts.astype(np.uint32)


def exact_tensors(conv: Convolution, grid: int, limit: float = LIMIT) -> dict[str, Array]:
    """Integer weight (int16), bias with the rounding half in it, and 2^-shift of one layer.

    limit: of its inputs. Raises ValueError if any partial sum could reach 2^24.
    """
    w, b, shift = fake_fixed(conv.weight, conv.bias, limit, grid)
    half = torch.where(shift > 0, 2.0 ** (shift - 1), torch.zeros_like(shift))
    b = b + half
    worst = w.abs().flatten(1).sum(1) * (limit * GRID) + b.abs()
    if worst.max() >= EXACT_SUM or w.abs().max() > 32767:
        raise ValueError(
            f"exact layer out of bounds: sum {worst.max():.0f}, weight {w.abs().max()}"
        )
    return {
        "weight": to_numpy(w, "int16"),
        "bias": to_numpy(b),
        "multiplier": to_numpy(2.0**-shift),
    }


def eight_tensors(conv: Convolution, source: Point) -> dict[str, Array]:
    """Weight (int8), its scale, and bias (int32) of one 8-bit layer of prior or predictor.

    Raises ValueError if a sum could reach 2^24 or a scale is not a power of two.
    """
    whole, scale = whole_weights(conv.weight, powers=True)
    bias = torch.round(conv.bias.detach().double() / (scale.double() * float(source.scale)))
    check_exact(whole, bias, source)
    return {
        "weight": to_numpy(whole, "int8"),
        "weight_scale": to_numpy(scale),
        "bias": to_numpy(bias, "int32"),
    }


def by_position(tensor: Array, axis: int, positions: int = 4) -> Array:
    """Reorder an axis: all positions of each colour -> the colours at each position."""
    order = np.arange(tensor.shape[axis]).reshape(-1, positions).T.reshape(-1)
    return np.take(tensor, order, axis)


def by_colour(tensor: Array, axis: int, positions: int = 4) -> Array:
    """The inverse of `by_position`."""
    order = np.arange(tensor.shape[axis]).reshape(positions, -1).T.reshape(-1)
    return np.take(tensor, order, axis)
