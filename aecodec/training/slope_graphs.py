"""ONNX graphs of the probability model backwards: for the encoder's search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from aecodec.prior import STEP_PHASES
from aecodec.training.backward import through_exact, through_layer, through_quarters, through_relu
from aecodec.training.config import Config
from aecodec.training.graph import Graph
from aecodec.training.layers import GRID
from aecodec.training.prior_graph import hyper_network, network


def prior_slope(g: Graph, cfg: Config) -> None:
    """What a step's bits have to do with what was coded before it: for the encoder's search.

    step, context and common as for the prior; by_mean and by_scale (4,M/4,n): derivatives of the
    bits by the prior's outputs. by_context (1,M,h,w): those by the elements of the context,
    whether they are known yet or not; by_common (1,W,h,w): those by `common`.
    """
    step = g.input("step", TensorProto.INT64, [])
    context = g.input("context", TensorProto.FLOAT, [1, cfg.M + 4, "h", "w"])
    common = g.input("common", TensorProto.FLOAT, [1, cfg.W, "h", "w"])
    slopes = {
        name: g.input(f"by_{name}", TensorProto.FLOAT, [4, cfg.M // 4, "n"])
        for name in ("mean", "scale")
    }
    active: dict[str, str] = {}
    network(g, cfg, g.op("Concat", context, common, axis=1), step, active)
    cells = g.op("Add", *(through_quarters(g, slopes[name], f"prior.{name}") for name in slopes))
    order = np.array([[row.index(phase) for phase in range(4)] for row in STEP_PHASES])
    order_of_step = g.op("Gather", g.constant(order), step, axis=0)
    size = g.op("Shape", context)
    ends = (g.constant(np.array([v])) for v in (2, 4))
    size = g.op("Div", g.op("Slice", size, *ends), g.constant(np.array([2, 2])))
    shape = g.op("Concat", g.constant(np.array([1, 4 * cfg.W])), size, axis=0)
    cells = g.op("Reshape", g.op("Gather", cells, order_of_step, axis=0), shape)
    s = g.op("DepthToSpace", cells, blocksize=2)
    for i in reversed(range(cfg.prior_blocks)):
        s = _block_back(g, s, f"prior.blocks.{i}", active, through_layer)
    s = through_layer(g, s, "prior.enter", step)
    for name, first, count in (("context", 0, cfg.M), ("common", cfg.M + 4, cfg.W)):
        ends = (g.constant(np.array([v])) for v in (first, first + count, 1))
        g.output(g.op("Slice", s, *ends), f"by_{name}", TensorProto.FLOAT, [1, count, "h", "w"])


def hyper_slope(g: Graph, cfg: Config) -> None:
    """z and h_s as in `hyper_synthesis`; by_common (1,W,h,w) -> by_z (1,Z,h/4,w/4).

    by_common: derivatives of the bits by what h_s gives, in 1/64; by_z: by the integers z.
    """
    z = g.input("z", TensorProto.FLOAT, [1, cfg.Z, "h4", "w4"])
    s = g.input("by_common", TensorProto.FLOAT, [1, cfg.W, "h", "w"])
    active: dict[str, str] = {}
    hyper_network(g, z, active)
    for number in (2, 1):
        s = through_exact(g, _unshuffle(g, s, f"h_s.up{number}"), f"h_s.up{number}")
        s = _block_back(g, s, f"h_s.block{number}", active, through_exact)
    s = g.op("Mul", through_exact(g, s, "h_s.stem"), g.scalar(GRID))
    g.output(s, "by_z", TensorProto.FLOAT, [1, cfg.Z, "h4", "w4"])


def _block_back(
    g: Graph, s: str, name: str, active: dict[str, str], through: Callable[[Graph, str, str], str]
) -> str:
    """Back through a block, whose layers `through` goes back through."""
    a = through_relu(g, through(g, s, f"{name}.w4"), active[f"{name}.w3"])
    s = g.op("Add", s, through(g, a, f"{name}.w3"))
    a = through(g, through(g, s, f"{name}.w2"), f"{name}.dw")
    a = through_relu(g, a, active[f"{name}.w1"])
    return g.op("Add", s, through(g, a, f"{name}.w1"))


def _unshuffle(g: Graph, s: str, layer: str) -> str:
    """Back through `Graph.shuffle` by two behind a layer."""
    rows = len(g.store[f"{layer}.weight"])
    s = g.op("SpaceToDepth", s, blocksize=2)
    size = g.op("Slice", g.op("Shape", s), *(g.constant(np.array([v])) for v in (2, 4)))
    for order, shape in (((0, 2, 1, 3, 4), (1, 4, rows // 4)), (None, (1, rows))):
        s = g.op("Reshape", s, g.op("Concat", g.constant(np.array(shape)), size, axis=0))
        s = g.op("Transpose", s, perm=list(order)) if order else s
    return s
