"""The predictor as the released file holds it, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aecodec.prior import LAP_BITS
from aecodec.training.eight import Point, points
from aecodec.training.layers import Convolution, Exact, Pointwise, whole_weights
from aecodec.training.predictor import Predictor, PredictorNet

Array = npt.NDArray[Any]
# Released tensors of an exact layer, and of an 8-bit layer that reads a point.
ExactTensors = Callable[[Convolution, int, float], dict[str, Array]]
EightTensors = Callable[[Convolution, Point], dict[str, Array]]
LAST = ("weight", "bias", "weight_scale")  # with rows, which the last layer has in another order


def by_position(tensor: Array, axis: int, positions: int = 4) -> Array:
    """Reorder an axis: all positions of each colour -> three colours at each position."""
    order = np.arange(3 * positions).reshape(3, positions).T.reshape(-1)
    return np.take(tensor, order, axis)


def by_colour(tensor: Array, axis: int, positions: int = 4) -> Array:
    """The inverse of `by_position`."""
    order = np.arange(3 * positions).reshape(positions, 3).T.reshape(-1)
    return np.take(tensor, order, axis)


def predictor_tensors(
    predictor: Predictor, exact: ExactTensors, eight: EightTensors
) -> dict[str, Array]:
    """Every tensor of the predictor, by name. Raises ValueError for what is not exact."""
    matrix = predictor.overlap.cpu().double().numpy()
    out: dict[str, Array] = {"predictor.lap": np.rint(matrix * 2**LAP_BITS).astype(np.int16)}
    out |= _named("predictor.picture", _exact(exact, predictor.picture))
    for step in predictor.steps:
        net, own = predictor.net(step), f"predictor.{step}"
        streams = {float(point.scale) for point in net.stream()}
        if len(streams) > 1:
            raise ValueError("the predictor's residual sums need one scale")
        found = points(net)
        out[f"{own}.points"] = np.array([float(point.scale) for point in found], np.float32)
        out[f"{own}.zeros"] = np.array([0 if point.relu else 128 for point in found], np.uint8)
        for name, layer, source in net.convolutions():
            out |= _named(f"{own}.{name}", eight(layer.conv, source))
        out[f"{own}.first.weight"] = by_position(out[f"{own}.first.weight"], 1)
        for part in LAST:
            out[f"{own}.last.{part}"] = by_position(out[f"{own}.last.{part}"], 0)
        out |= _named(f"{own}.back", _back(exact, predictor, net))
    return out


def offset_rows(predictor: Predictor, quality: Tensor) -> dict[str, Array]:
    """Rows (R,C) at qualities (R,) of what each step adds to its first bias, in its units."""
    out: dict[str, Array] = {}
    for step in predictor.steps:
        net = predictor.net(step)
        _, scale = whole_weights(net.first.conv.weight, powers=True)
        with torch.no_grad():
            rows = net.offsets(quality)[..., 0, 0].double() / (scale.double() * net.seen.scale)
        out[f"predictor_{step}"] = rows.round().cpu().numpy().astype(np.int32)
    return out


def _back(exact: ExactTensors, predictor: Predictor, net: PredictorNet) -> dict[str, Array]:
    """The linear map back to means of one step, with its gains."""
    conv = Pointwise(768, len(net.gain))
    with torch.no_grad():
        gain = torch.exp(net.gain)
        conv.weight.copy_(predictor.back.conv.weight * gain[:, None])
        conv.bias.copy_(predictor.back.conv.bias * gain)
    tensors = exact(conv, predictor.back.grid, predictor.back.limit)
    tensors["weight"] = by_position(tensors["weight"], 1, 256)
    return tensors


def _exact(exact: ExactTensors, module: Exact) -> dict[str, Array]:
    return exact(module.conv, module.grid, module.limit)


def _named(prefix: str, tensors: dict[str, Array]) -> dict[str, Array]:
    return {f"{prefix}.{part}": array for part, array in tensors.items()}


def predictor_state(stored: dict[str, Array], predictor: Predictor) -> dict[str, Array]:
    """The state of a predictor's networks from their released tensors; names with their prefix.

    The linear maps are those of the codec: see `Predictor.follow`.
    """

    out: dict[str, Array] = {}
    for step in predictor.steps:
        net, own, to = predictor.net(step), f"predictor.{step}", f"predictor.nets.{step}"
        scales = dict(zip(points(net), stored[f"{own}.points"], strict=True))
        names = {module: name for name, module in net.named_modules()}
        out |= {f"{to}.{names[point]}.scale": np.array(v) for point, v in scales.items()}
        for name, _, source in net.convolutions():
            parts = {part: stored[f"{own}.{name}.{part}"] for part in LAST}
            if name == "first":
                parts["weight"] = by_colour(parts["weight"], 1)
            if name == "last":
                parts = {part: by_colour(array, 0) for part, array in parts.items()}
            weight, bias = parts["weight"], parts["bias"]
            scale = parts["weight_scale"].astype(np.float64)
            out[f"{to}.{name}.conv.weight"] = weight * scale[:, None, None, None]
            out[f"{to}.{name}.conv.bias"] = bias * scale * float(scales[source])
        out[f"{to}.offsets.anchors"] = stored[f"train.predictor.{step}.offsets"]
        out[f"{to}.gain"] = stored[f"train.predictor.{step}.gain"]
    return out


def training_tensors(predictor: Predictor) -> dict[str, Tensor]:
    """What only training needs of a predictor, by name."""
    found: dict[str, Tensor] = {}
    for step in predictor.steps:
        net = predictor.net(step)
        found |= {f"{step}.offsets": net.offsets.anchors, f"{step}.gain": net.gain}
    return found
