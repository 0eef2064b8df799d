"""ONNX graph of the filter, in 8 bits where the weights have points (see `filter`).

In 8 bits a ReLU needs no operator: its output has the zero point 0, where values are cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from aecodec.training.config import Config
from aecodec.training.filter import SLOPE

if TYPE_CHECKING:
    from aecodec.training.graphs import Graph

CONTRIB = "com.microsoft"  # ONNX Runtime's own operators, for 8-bit sums


def filter_graph(g: Graph, cfg: Config, parts: str, name: str) -> str:
    """Correction of parts (1,12,H/2,W/2) in units of 64 levels; asks for the vector q_filter.

    Parts hold the four positions of 2x2 samples one after the other, each with its three colours.
    name: that of the band's filter among the tensors.
    """
    quality = g.input("q_filter", TensorProto.FLOAT, [1, cfg.F, 1, 1])
    # The quality's factors are positive: they can as well come after the ReLU, which a runtime
    # then computes with the convolution, and become one with the scale of the 8 bits.
    a = g.op("LeakyRelu", g.conv3(parts, f"{name}.first"), alpha=SLOPE)
    if f"{name}.points" in g.store:
        a = _eight_bits(g, cfg, a, name, g.op("Reshape", quality, g.constant(np.array([cfg.F]))))
    else:
        a = _floating(g, cfg, g.op("Mul", a, quality), name)
    return g.conv3(a, f"{name}.last")


def _floating(g: Graph, cfg: Config, a: str, name: str) -> str:
    for i in range(cfg.filter_layers):
        a = g.op("LeakyRelu", g.conv3(a, f"{name}.layers.{i}"), alpha=cfg.filter_slope)
    for i in range(cfg.filter_blocks):
        b = g.op("LeakyRelu", g.conv3(a, f"{name}.blocks.{i}.w1"), alpha=cfg.filter_slope)
        a = g.op("Add", a, g.conv3(b, f"{name}.blocks.{i}.w2"))
    return a


def _eight_bits(g: Graph, cfg: Config, a: str, name: str, quality: str) -> str:
    points = [
        (g.constant(np.array(scale, np.float32)), g.constant(np.array(zero, np.uint8)))
        for scale, zero in g.store[f"{name}.points"]
    ]

    def convolve(a: str, layer: str, source: int, target: int) -> str:
        weight = (g.raw(f"{layer}.weight"), g.raw(f"{layer}.weight_scale"))
        return g.op("QLinearConv", a, *points[source], *weight, g.constant(zeros),
                   *points[target], g.raw(f"{layer}.bias"),
                   kernel_shape=[3, 3], pads=[1, 1, 1, 1])  # fmt: skip

    if cfg.filter_slope:
        raise ValueError("the filter in 8 bits needs filter_slope = 0")
    zeros = np.zeros(cfg.F, np.int8)
    zero_points = g.constant(np.full(cfg.F, g.store[f"{name}.points"][0, 1], np.uint8))
    a = g.op("QuantizeLinear", a, g.op("Div", points[0][0], quality), zero_points, axis=1)
    for i in range(cfg.filter_layers):
        a = convolve(a, f"{name}.layers.{i}", i, i + 1)
    at = cfg.filter_layers  # the point of a
    for i in range(cfg.filter_blocks):
        b = convolve(a, f"{name}.blocks.{i}.w1", at, at + 1)
        b = convolve(b, f"{name}.blocks.{i}.w2", at + 1, at + 2)
        a = g.op("QLinearAdd", a, *points[at], b, *points[at + 2], *points[at + 3],
                 domain=CONTRIB)  # fmt: skip
        at += 3
    return g.op("DequantizeLinear", a, *points[at])
