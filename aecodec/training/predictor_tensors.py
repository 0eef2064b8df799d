"""The predictor as the released file holds it, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aecodec.prior import LAP_BITS
from aecodec.training.eight import points
from aecodec.training.layers import Pointwise, whole_weights
from aecodec.training.predictor import Predictor, PredictorNet
from aecodec.training.released import (
    by_colour,
    by_position,
    eight_tensors,
    exact_tensors,
    to_numpy,
)

Array = npt.NDArray[Any]
LAST = ("weight", "bias", "weight_scale")  # with rows, which the last layer has in another order


def predictor_tensors(predictor: Predictor) -> dict[str, Array]:
    """Every tensor of the predictor, by name. Raises ValueError for what is not exact."""
    picture, matrix = predictor.picture, torch.round(predictor.overlap * 2**LAP_BITS)
    out = {"predictor.lap": to_numpy(matrix, "int16")}
    out |= _named("predictor.picture", exact_tensors(picture.conv, picture.grid, picture.limit))
    for step in predictor.steps:
        net, own = predictor.net(step), f"predictor.{step}"
        streams = {float(point.scale) for point in net.stream()}
        if len(streams) > 1:
            raise ValueError("the predictor's residual sums need one scale")
        found = points(net)
        out[f"{own}.points"] = np.array([float(point.scale) for point in found], np.float32)
        out[f"{own}.zeros"] = np.array([0 if point.relu else 128 for point in found], np.uint8)
        for name, layer, source in net.convolutions():
            out |= _named(f"{own}.{name}", eight_tensors(layer.conv, source))
        out[f"{own}.first.weight"] = by_position(out[f"{own}.first.weight"], 1)
        for part in LAST:
            out[f"{own}.last.{part}"] = by_position(out[f"{own}.last.{part}"], 0)
        out |= _named(f"{own}.back", _back(predictor, net))
    return out


def offset_rows(predictor: Predictor, quality: Tensor) -> dict[str, Array]:
    """Rows (R,C) at qualities (R,) of what each step adds to its first bias, in its units."""
    out: dict[str, Array] = {}
    for step in predictor.steps:
        net = predictor.net(step)
        _, scale = whole_weights(net.first.conv.weight, powers=True)
        with torch.no_grad():
            rows = net.offsets(quality)[..., 0, 0].double() / (scale.double() * net.seen.scale)
        out[f"predictor_{step}"] = to_numpy(rows.round(), "int32")
    return out


def _back(predictor: Predictor, net: PredictorNet) -> dict[str, Array]:
    """The linear map back to means of one step, with its gains."""
    conv = Pointwise(predictor.back.conv.weight.shape[1], len(net.gain))
    with torch.no_grad():
        gain = torch.exp(net.gain)
        conv.weight.copy_(predictor.back.conv.weight * gain[:, None])
        conv.bias.copy_(predictor.back.conv.bias * gain)
    tensors = exact_tensors(conv, predictor.back.grid, predictor.back.limit)
    tensors["weight"] = by_position(tensors["weight"], 1, 256)
    return tensors


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
