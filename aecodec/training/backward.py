"""Layers of the graphs backwards: what transposed Jacobians make of a slope.

Rounding counts as the identity, and so does cutting off at the upper end of the 8 bits, which is
rare. Where a ReLU let nothing through, nothing comes back.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from aecodec.training.graph import Graph

END = np.iinfo(np.int64).min  # of a slice that goes backwards to the first


def through_relu(g: Graph, slope: str, active: str) -> str:
    """Back through a ReLU that gave `active`, real values or 8 bits with the zero point 0."""
    return g.op("Where", g.op("Cast", active, to=TensorProto.BOOL), slope, g.scalar(0.0))


def through_layer(g: Graph, slope: str, name: str, step: str = "") -> str:
    """Back through a 1x1, depthwise or full convolution: one with its weights turned round.

    step: takes the step's weights of a stack of four.
    """
    shape = g.store[f"{name}.weight"].shape
    weight, scaled = g.stored(f"{name}.weight"), f"{name}.weight_scale" in g.store
    scale = g.raw(f"{name}.weight_scale") if scaled else ""
    if step:
        shape = shape[1:]
        weight = g.op("Gather", weight, step, axis=0)
        scale = scale and g.op("Gather", scale, step, axis=0)
    rows, columns, side = shape[0], shape[1], shape[-1] if len(shape) == 4 else 1
    weight = g.op("Reshape", weight, g.constant(np.array([rows, columns, side, side])))
    if scale:
        scale = g.op("Reshape", scale, g.constant(np.array([rows, 1, 1, 1])))
        weight = g.op("Mul", weight, scale)
    depthwise = side > 1 and columns == 1
    if not depthwise:
        weight = g.op("Transpose", weight, perm=[1, 0, 2, 3])
    if side > 1:
        backwards = (np.array(v, np.int64) for v in ([-1, -1], [END, END], [2, 3], [-1, -1]))
        weight = g.op("Slice", weight, *(g.constant(v) for v in backwards))
    return g.op("Conv", slope, weight, kernel_shape=[side] * 2, pads=[side // 2] * 4,
                group=rows if depthwise else 1)  # fmt: skip


def through_exact(g: Graph, slope: str, name: str) -> str:
    """Back through an integer layer, `Graph.exact`, and not through its ends."""
    multiplier = g.stored(f"{name}.multiplier", (len(g.store[f"{name}.weight"]), 1, 1))
    return through_layer(g, g.op("Mul", slope, multiplier), name)


def through_quarters(g: Graph, slope: str, name: str) -> str:
    """Back through `Graph.exact_quarters`: (4,M/4,n) -> cells (4,C,n)."""
    rows, columns = g.store[f"{name}.weight"].shape
    weight = g.stored(f"{name}.weight", (rows // 4, 4, columns))
    weight = g.op("Transpose", weight, perm=[1, 2, 0])
    multiplier = g.stored(f"{name}.multiplier", (rows // 4, 4, 1))
    multiplier = g.op("Transpose", multiplier, perm=[1, 0, 2])
    return g.op("MatMul", weight, g.op("Mul", slope, multiplier))
