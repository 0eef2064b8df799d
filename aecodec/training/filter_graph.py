"""ONNX graph of the filter, in 8 bits where the weights have points (see `filter`), and back.

In 8 bits a ReLU needs no operator: its output has the zero point 0, where values are cut off.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from aecodec.training.backward import through_layer, through_relu
from aecodec.training.config import Config
from aecodec.training.eight_graph import convolve, last_layer
from aecodec.training.filter import SLOPE
from aecodec.training.graph import CONTRIB, Graph


class FilterGraph:
    """The filter of one band of quality; asks for the vector q_filter.

    name: that of the band's filter among the tensors. tuned: asks for the weights of the last
    layer as well, which must be one in 8 bits.
    """

    def __init__(self, g: Graph, cfg: Config, name: str, tuned: bool = False) -> None:
        self._g, self._cfg, self._name = g, cfg, name
        self._quality = "q_filter"
        self._eight = f"{name}.points" in g.store
        self._last_eight = f"{name}.last.weight_scale" in g.store
        if self._eight and cfg.filter_slope:
            raise ValueError("the filter in 8 bits needs filter_slope = 0")
        self._tuned = tuned
        self.seen = ""  # by the last layer, in 8 bits
        self._first = ""  # before its ReLU
        self._active: dict[str, str] = {}  # what each convolution before a ReLU gave, after it

    def forward(self, parts: str) -> str:
        """Correction of parts (1,12,H/2,W/2) in units of 64 levels.

        Parts hold the four positions of 2x2 samples one after the other, each with its three
        colours.
        """
        g = self._g
        g.input(self._quality, TensorProto.FLOAT, [1, self._cfg.F, 1, 1])
        # The quality's factors are positive: they can as well come after the ReLU, which a
        # runtime then computes with the convolution, and become one with the scale of 8 bits.
        self._first = g.conv3(parts, f"{self._name}.first")
        a = g.op("LeakyRelu", self._first, alpha=SLOPE)
        a = self._eight_bits(a) if self._eight else self._floating(g.op("Mul", a, self._quality))
        return a if self._last_eight else g.conv3(a, f"{self._name}.last")

    def backward(self, slope: str) -> str:
        """What the transposed Jacobian of `forward`, which comes first, makes of `slope`.

        Both (1,12,H/2,W/2). Rounding counts as the identity; values that the 8 bits cut off at
        their upper end, which are few, as if they were not.
        """
        g, names = self._g, [f"{self._name}.blocks.{i}" for i in range(self._cfg.filter_blocks)]
        s = through_layer(g, slope, f"{self._name}.last")
        for name in reversed(names):
            b = self._passed(through_layer(g, s, f"{name}.w2"), f"{name}.w1")
            s = g.op("Add", s, through_layer(g, b, f"{name}.w1"))
        for i in reversed(range(self._cfg.filter_layers)):
            name = f"{self._name}.layers.{i}"
            s = through_layer(g, self._passed(s, name), name)
        s = g.op("Mul", s, self._quality)
        positive = g.op("Greater", self._first, g.scalar(0.0))
        s = g.op("Where", positive, s, g.op("Mul", s, g.scalar(SLOPE)))
        return through_layer(g, s, f"{self._name}.first")

    def _floating(self, a: str) -> str:
        g = self._g
        for i in range(self._cfg.filter_layers):
            a = self._relu(g.conv3(a, f"{self._name}.layers.{i}"), f"{self._name}.layers.{i}")
        for i in range(self._cfg.filter_blocks):
            name = f"{self._name}.blocks.{i}"
            b = self._relu(g.conv3(a, f"{name}.w1"), f"{name}.w1")
            a = g.op("Add", a, g.conv3(b, f"{name}.w2"))
        return a

    def _relu(self, a: str, layer: str) -> str:
        self._active[layer] = self._g.op("LeakyRelu", a, alpha=self._cfg.filter_slope)
        return self._active[layer]

    def _eight_bits(self, a: str) -> str:
        g, cfg, name = self._g, self._cfg, self._name
        quality = g.op("Reshape", self._quality, g.constant(np.array([cfg.F])))
        points = [
            (g.constant(np.array(scale, np.float32)), g.constant(np.array(zero, np.uint8)))
            for scale, zero in g.store[f"{name}.points"]
        ]

        def layer(a: str, own: str, source: int, target: int) -> str:
            self._active[own] = convolve(g, a, own, points[source], points[target])
            return self._active[own]

        zero_points = g.constant(np.full(cfg.F, g.store[f"{name}.points"][0, 1], np.uint8))
        a = g.op("QuantizeLinear", a, g.op("Div", points[0][0], quality), zero_points, axis=1)
        for i in range(cfg.filter_layers):
            a = layer(a, f"{name}.layers.{i}", i, i + 1)
        at = cfg.filter_layers  # the point of a
        for i in range(cfg.filter_blocks):
            b = layer(a, f"{name}.blocks.{i}.w1", at, at + 1)
            b = layer(b, f"{name}.blocks.{i}.w2", at + 1, at + 2)
            a = g.op("QLinearAdd", a, *points[at], b, *points[at + 2], *points[at + 3],
                     domain=CONTRIB)  # fmt: skip
            at += 3
        if self._last_eight:
            self.seen, last = a, f"{name}.last"
            shape: list[int | str] = [*g.store[f"{last}.weight"].shape]
            weight = g.input("last_weight", TensorProto.INT8, shape) if self._tuned else ""
            a, at = last_layer(g, a, last, points[at], points[at + 1], weight), at + 1
        return g.op("DequantizeLinear", a, *points[at])

    def _passed(self, slope: str, layer: str) -> str:
        """Back through the ReLU behind a convolution."""
        g, active = self._g, self._active[layer]
        if self._eight:
            return through_relu(g, slope, active)
        low = g.op("Mul", slope, g.scalar(self._cfg.filter_slope))
        return g.op("Where", g.op("Greater", active, g.scalar(0.0)), slope, low)
