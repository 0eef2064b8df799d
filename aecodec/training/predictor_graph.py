"""ONNX graph of the predictor at one step, in whole numbers (see `aecodec.training.predictor`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from aecodec.prior import LAP_BITS, PICTURE_MAX, PICTURE_MIN, PICTURE_UNITS, STEP_PHASES
from aecodec.training.config import Config
from aecodec.training.eight_graph import Point, convolve, last_layer
from aecodec.training.graph import CONTRIB, Graph

BLOCK = 16


def predictor(g: Graph, cfg: Config, step: int) -> None:
    """latent (1,M,h,w), means (4,M/4,n) in 1/256 of u, offset (C,) -> better means.

    All are whole numbers; n = h/2 * w/2, quarter by quarter, as the prior gives them. The latent is
    what is known, in 1/64 of u, with the means of this step where it codes.
    """
    latent = g.input("latent", TensorProto.FLOAT, [1, cfg.M, "h", "w"])
    mean = g.input("mean", TensorProto.FLOAT, [4, cfg.M // 4, "n"])
    offset = g.input("offset", TensorProto.INT32, [cfg.predictor_width])
    picture = _clip(g, g.exact(latent, "predictor.picture", "out"))
    matrix = g.store["predictor.lap"]
    picture = _lap(g, g.shuffle(picture, BLOCK), matrix.T)
    parts = g.op("SpaceToDepth", picture, blocksize=2)
    missing = g.op("DepthToSpace", _network(g, cfg, step, parts, offset), blocksize=2)
    missing = _lap(g, missing, matrix)
    cells = g.op("SpaceToDepth", missing, blocksize=BLOCK)
    cells = g.op("SpaceToDepth", cells, blocksize=2)
    samples = BLOCK**2 * cfg.predictor_colours
    cells = g.op("Reshape", cells, g.constant(np.array([4, samples, -1])))
    cells = g.op("Gather", cells, g.constant(np.array(STEP_PHASES[step])), axis=0)
    out = g.op("Add", mean, g.exact_quarters(cells, f"predictor.{step}.back"))
    g.output(out, "better", TensorProto.FLOAT, [4, cfg.M // 4, "n"])


def _network(g: Graph, cfg: Config, step: int, parts: str, offset: str) -> str:
    """Parts (1,4C,H/2,W/2) of the picture so far, in 1/8 of a level -> parts of what is missing."""
    own = f"predictor.{step}"
    scales, zeros = g.store[f"{own}.points"], g.store[f"{own}.zeros"]
    points: list[Point] = [
        (g.constant(np.array(scale, np.float32)), g.constant(np.array(zero, np.uint8)))
        for scale, zero in zip(scales, zeros, strict=True)
    ]
    unit = g.constant(np.array(scales[0] * PICTURE_UNITS, np.float32))
    a = g.op("QuantizeLinear", parts, unit, points[0][1])
    bias = g.op("Add", g.raw(f"{own}.first.bias"), offset)
    a, at = convolve(g, a, f"{own}.first", points[0], points[1], bias=bias), 1
    for i in range(cfg.predictor_layers):
        a = convolve(g, a, f"{own}.layers.{i}", points[at], points[at + 1])
        at += 1
    for i in range(cfg.predictor_blocks):
        w1, w2, total = points[at + 1 : at + 4]
        b = convolve(g, a, f"{own}.blocks.{i}.w1", points[at], w1)
        b = convolve(g, b, f"{own}.blocks.{i}.w2", w1, w2)
        a = g.op("QLinearAdd", a, *points[at], b, *w2, *total, domain=CONTRIB)
        at += 3
    a = last_layer(g, a, f"{own}.last", points[at], points[at + 1])
    unit = g.constant(np.array(scales[at + 1] * PICTURE_UNITS, np.float32))
    return _clip(g, g.op("DequantizeLinear", a, unit, points[at + 1][1]))


def _lap(g: Graph, x: str, matrix: npt.NDArray[Any]) -> str:
    """The lapped filter in integers: rows, then columns, each rounded and clipped."""

    def settle(parts: str) -> str:
        parts = g.op("Add", g.op("Mul", parts, g.scalar(2.0**-LAP_BITS)), g.scalar(0.5))
        return _clip(g, g.op("Floor", parts))

    return g.lap(x, matrix.astype(np.float32), settle)


def _clip(g: Graph, x: str) -> str:
    return g.clip(x, PICTURE_MIN, PICTURE_MAX)
