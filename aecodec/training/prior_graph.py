"""ONNX graphs of h_s, and of the prior in 8-bit products (see `aecodec.training.eight`)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from aecodec.eight_bits import BLOCK_POINTS
from aecodec.prior import STEP_PHASES
from aecodec.training.config import Config
from aecodec.training.eight_graph import Point, convolve
from aecodec.training.graph import CONTRIB, Graph
from aecodec.training.layers import GRID

POINTS = "prior.points"  # scale of each point, in the order of `aecodec.training.eight.points`


def prior(g: Graph, cfg: Config) -> None:
    """One step: context (1,M+4,h,w), common (1,W,h,w) -> integer means and scale indices.

    Outputs (4,M/4,n): of the elements that the step codes, quarter by quarter, n = h/2 * w/2.
    """
    step = g.input("step", TensorProto.INT64, [])
    context = g.input("context", TensorProto.FLOAT, [1, cfg.M + 4, "h", "w"])
    common = g.input("common", TensorProto.FLOAT, [1, cfg.W, "h", "w"])
    a = network(g, cfg, g.op("Concat", context, common, axis=1), step, {})
    # A position of the 2x2 cells codes one quarter of the channels in a step: only those.
    cells = g.op("SpaceToDepth", a, blocksize=2)
    cells = g.op("Reshape", cells, g.constant(np.array([4, cfg.W, -1])))
    phases = g.op("Gather", g.constant(np.array(STEP_PHASES)), step, axis=0)
    cells = g.op("Gather", cells, phases, axis=0)
    for name in ("mean", "scale"):
        out = g.exact_quarters(cells, f"prior.{name}")
        g.output(out, name, TensorProto.FLOAT, [4, cfg.M // 4, "n"])


def hyper_network(g: Graph, z: str, active: dict[str, str]) -> str:
    """h_s: integers z in 1/64 to integers in 1/64; `active` as in `network`."""
    a = g.exact_block(g.exact(z, "h_s.stem", "sum"), "h_s.block1", active)
    a = g.shuffle(g.exact(a, "h_s.up1", "sum"), 2)
    return g.shuffle(g.exact(g.exact_block(a, "h_s.block2", active), "h_s.up2", "sum"), 2)


def network(g: Graph, cfg: Config, a: str, step: str, active: dict[str, str]) -> str:
    """Integers in 1/64 to integers in 1/64, through 8 bits.

    Puts what comes out of every ReLU into `active`, by the name of the layer before it.
    """
    scales = g.store[POINTS]
    zeros = [_zero_point(i) for i in range(len(scales))]
    points = [
        (g.constant(np.array(scale, np.float32)), g.constant(np.array(zero, np.uint8)))
        for scale, zero in zip(scales, zeros, strict=True)
    ]
    ends = [  # of the integers in 1/64 on both sides
        (g.constant(np.array(scales[i] * GRID, np.float32)), points[i][1]) for i in (0, -1)
    ]
    a = g.op("QuantizeLinear", a, *ends[0])
    a = convolve(g, a, "prior.enter", points[0], points[1], step)
    at = 1  # the point of a
    for i in range(cfg.prior_blocks):
        a = _block(g, a, f"prior.blocks.{i}", points[at : at + BLOCK_POINTS + 1], active)
        at += BLOCK_POINTS
    return g.op("DequantizeLinear", a, *ends[1])


def _zero_point(point: int) -> int:
    """0 behind a ReLU (the first and fifth point of a block), else 128."""
    return 0 if point >= 2 and (point - 2) % BLOCK_POINTS in (0, 4) else 128


def _block(g: Graph, a: str, name: str, points: list[Point], active: dict[str, str]) -> str:
    source, w1, dw, w2, sum1, w3, w4, sum2 = points
    active[f"{name}.w1"] = b = convolve(g, a, f"{name}.w1", source, w1)
    b = convolve(g, b, f"{name}.dw", w1, dw)
    b = convolve(g, b, f"{name}.w2", dw, w2)
    a = g.op("QLinearAdd", a, *source, b, *w2, *sum1, domain=CONTRIB)
    active[f"{name}.w3"] = b = convolve(g, a, f"{name}.w3", sum1, w3)
    b = convolve(g, b, f"{name}.w4", w3, w4)
    return g.op("QLinearAdd", a, *sum1, b, *w4, *sum2, domain=CONTRIB)
