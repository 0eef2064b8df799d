"""Convolutions in 8 bits as ONNX operators, for the graphs of prior, predictor and filter."""

from __future__ import annotations

import numpy as np

from aecodec.training.graph import Graph

Point = tuple[str, str]  # names of scale and zero point
WIDTH = 16  # of a last layer, spare channels included: faster than with the 12 of a picture's parts


def convolve(
    g: Graph, a: str, name: str, source: Point, target: Point,
    step: str = "", bias: str = "", spare: int = 0, weight: str = "",
) -> str:  # fmt: skip
    """A convolution in 8 bits; with `step`, 1x1 with the step's tensors of a stack of four.

    bias, weight: in place of the layer's own.
    spare: kernels of nothing after its own, where a round number of channels is faster.
    """
    shape = g.store[f"{name}.weight"].shape
    rows = shape[1] if step else shape[0]
    kernels = len(shape) == 4
    side = shape[-1] if kernels else 1
    weight = weight or g.raw(f"{name}.weight", shape if kernels else (*shape, 1, 1))
    scale, bias = g.raw(f"{name}.weight_scale"), bias or g.raw(f"{name}.bias")
    if step:
        weight, scale, bias = (g.op("Gather", t, step, axis=0) for t in (weight, scale, bias))
    if spare:
        empty = g.constant(np.zeros((spare, *shape[1:]), np.int8))
        weight = g.op("Concat", weight, empty, axis=0)
        scale = g.op("Concat", scale, g.constant(np.ones(spare, np.float32)), axis=0)
        bias = g.op("Concat", bias, g.constant(np.zeros(spare, np.int32)), axis=0)
    zeros = g.constant(np.zeros(rows + spare, np.int8))
    return g.op("QLinearConv", a, *source, weight, scale, zeros, *target, bias,
                kernel_shape=[side] * 2, pads=[side // 2] * 4,
                group=rows if kernels and shape[1] == 1 else 1)  # fmt: skip


def last_layer(g: Graph, a: str, name: str, source: Point, target: Point, weight: str = "") -> str:
    """As `convolve`, computed with WIDTH channels, of which those of the layer are given."""
    rows = len(g.store[f"{name}.weight"])
    a = convolve(g, a, name, source, target, spare=max(0, WIDTH - rows), weight=weight)
    return g.op("Slice", a, *(g.constant(np.array([i])) for i in (0, rows, 1)))  # axis 1
