"""The graphs of a model's networks, written node by node so that every operation is known."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from aecodec.training.config import Config
from aecodec.training.filter_graph import FilterGraph
from aecodec.training.graph import Graph
from aecodec.training.lapped import lapped_matrix
from aecodec.training.layers import LIMIT
from aecodec.training.predictor_graph import predictor
from aecodec.training.prior_graph import hyper_network, prior
from aecodec.training.slope_graphs import hyper_slope, prior_slope

OVERLAP: npt.NDArray[np.float32] = lapped_matrix().numpy()


def _vector(g: Graph, name: str, channels: int) -> str:
    return g.input(name, TensorProto.FLOAT, [1, channels, 1, 1])


def _axes(g: Graph) -> tuple[str, str]:
    """A rotation of colours, and what is added after it."""
    kind = TensorProto.FLOAT
    return g.input("turn", kind, [3, 3]), g.input("shift", kind, [3, 1])


def _turned(g: Graph, planes: str, count: int, turn: str, shift: str = "") -> str:
    """Colours of planes (1,3 count,h,w), three after three, turned and shifted."""
    shape = g.op("Shape", planes)
    colours = g.op("Reshape", planes, g.constant(np.array([count, 3, -1])))
    colours = g.op("MatMul", turn, colours)
    if shift:
        colours = g.op("Add", colours, shift)
    return g.op("Reshape", colours, shape)


def analysis(g: Graph, cfg: Config, turned: bool = False) -> None:
    """x uint8 (1,3,H,W) -> u = y / s (1,M,H/16,W/16); turned: asks for a rotation of colours."""
    x = g.input("x", TensorProto.UINT8, [1, 3, "H", "W"])
    x = g.op("Sub", g.op("Cast", x, to=TensorProto.FLOAT), g.scalar(128.0))
    if turned:
        x = _turned(g, x, 1, *_axes(g))
    u = _linear_analysis(g, cfg, x)
    if cfg.has_g_a:
        q8, q16 = _vector(g, "q_a8", cfg.C8), _vector(g, "q_a16", cfg.C16)
        a = g.op("Mul", g.conv(g.op("Mul", x, g.scalar(1 / 64)), "g_a.stem", 8), q8)
        for i in range(cfg.enc_blocks8):
            a = g.block(a, f"g_a.blocks8.{i}")
        a = g.op("Mul", g.conv(a, "g_a.down", 2), q16)
        for i in range(cfg.enc_blocks16):
            a = g.block(a, f"g_a.blocks16.{i}")
        u = g.op("Add", u, g.conv(a, "g_a.head"))
    g.output(u, "u", TensorProto.FLOAT, [1, cfg.M, "h", "w"])


def _linear_analysis(g: Graph, cfg: Config, x: str) -> str:
    linear = g.op("Conv", g.lap(x, OVERLAP), g.stored("linear_a", (cfg.M, 3, 16, 16)),
                  kernel_shape=[16, 16], strides=[16, 16])  # fmt: skip
    return g.op("Mul", linear, g.stored("s_inverse", (cfg.M, 1, 1)))


def hyper_analysis(g: Graph, cfg: Config) -> None:
    """u (1,M,h,w) -> z (1,Z,h/4,w/4)."""
    u = g.input("u", TensorProto.FLOAT, [1, cfg.M, "h", "w"])
    q_h, q_z = _vector(g, "q_h", cfg.H), _vector(g, "q_z", cfg.Z)
    a = g.op("Mul", g.conv(g.clip(u, -LIMIT, LIMIT), "h_a.stem"), q_h)
    a = g.conv(g.block(a, "h_a.block1"), "h_a.down1", 2)
    a = g.conv(g.block(a, "h_a.block2"), "h_a.down2", 2)
    g.output(g.op("Mul", a, q_z), "z", TensorProto.FLOAT, [1, cfg.Z, "h4", "w4"])


def hyper_synthesis(g: Graph, cfg: Config) -> None:
    """Integer z (1,Z,h/4,w/4) -> integers (1,W,h,w)."""
    z = g.input("z", TensorProto.FLOAT, [1, cfg.Z, "h4", "w4"])
    g.output(hyper_network(g, z, {}), "h_s", TensorProto.FLOAT, [1, cfg.W, "h", "w"])


def synthesis(g: Graph, cfg: Config, band: int = 0, turned: bool = False) -> None:
    """y_hat (1,M,h,w) in natural units -> parts uint8 (1,12,8h,8w) of the picture.

    band: of quality, which has a filter of its own. turned: asks for the rotation of colours that
    comes before g_a, and undoes it.

    Channel 3 (2 i + j) + c has colour c of the samples in rows 2 y + i, columns 2 x + j. Putting
    them in place is a copy of bytes, which a runtime would do in floating point and much slower.
    """
    _synthesis(g, cfg, FilterGraph(g, cfg, f"filter.{band}"), *(_axes(g) if turned else ()))


def tuned(g: Graph, cfg: Config, band: int = 0) -> None:
    """As `synthesis` of turned colours, with other weights in the filter's last layer."""
    _synthesis(g, cfg, FilterGraph(g, cfg, f"filter.{band}", tuned=True), *_axes(g))


def fitting(g: Graph, cfg: Config, band: int = 0) -> None:
    """As `synthesis` of turned colours, and what the filter's last layer sees: (1,H/2,W/2,F) uint8.

    That is for `aecodec.moments`, which wants channels last.
    """
    filter_ = FilterGraph(g, cfg, f"filter.{band}")
    _synthesis(g, cfg, filter_, *_axes(g))
    seen = g.op("Transpose", filter_.seen, perm=[0, 2, 3, 1])
    g.output(seen, "seen", TensorProto.UINT8, [1, "H2", "W2", cfg.F])


def correction(g: Graph, cfg: Config, band: int = 0) -> None:
    """As `synthesis`, and what the latent lacks: for the encoder's search.

    x uint8 (1,3,H,W) is what the picture should be, counted float32 (1,1,H,W) 1 where it counts
    and 0 elsewhere, turn (3,3) the rotation of colours before g_a and shift (3,1) what is added to
    them. missing (1,M,h,w), in units of u: a step of gradient descent on the squared error, whole
    for a synthesis that is orthogonal but for its filter; beside the linear path g_s is left out.
    """
    filter_ = FilterGraph(g, cfg, f"filter.{band}")
    turn, shift = _axes(g)
    parts = _synthesis(g, cfg, filter_, turn, shift)
    x = g.op("Cast", g.input("x", TensorProto.UINT8, [1, 3, "H", "W"]), to=TensorProto.FLOAT)
    counted = g.input("counted", TensorProto.FLOAT, [1, 1, "H", "W"])
    x_hat = g.op("DepthToSpace", g.op("Cast", parts, to=TensorProto.FLOAT), blocksize=2)
    error = _turned(g, g.op("Mul", g.op("Sub", x, x_hat), counted), 1, turn)
    behind = filter_.backward(g.op("SpaceToDepth", error, blocksize=2))
    error = g.op("Add", error, g.op("DepthToSpace", behind, blocksize=2))
    g.output(_linear_analysis(g, cfg, error), "missing", TensorProto.FLOAT, [1, cfg.M, "h", "w"])


def _restored(g: Graph, cfg: Config, filter_: FilterGraph) -> str:
    """Parts (1,12,h,w) of the filtered picture minus 128, in units of 64 levels, still turned."""
    y_hat = g.input("y_hat", TensorProto.FLOAT, [1, cfg.M, "h", "w"])
    linear = g.op("Conv", y_hat, g.stored("linear_s", (768, cfg.M, 1, 1)),
                  g.stored("linear_offset"), kernel_shape=[1, 1])  # fmt: skip
    x_hat = g.lap(g.shuffle(linear, 16), OVERLAP.T)  # minus 128, in units of 64 levels
    if cfg.has_g_s:
        x_hat = g.op("Add", x_hat, _synthesis_network(g, cfg, y_hat))
    parts = g.op("SpaceToDepth", x_hat, blocksize=2)
    return g.op("Add", parts, filter_.forward(parts))


def _synthesis(g: Graph, cfg: Config, filter_: FilterGraph, turn: str = "", shift: str = "") -> str:
    parts = _restored(g, cfg, filter_)
    if turn:  # back: transpose(turn) (parts - shift)
        back = g.op("Transpose", turn)
        away = g.op("Mul", g.op("MatMul", back, shift), g.scalar(-1 / 64))
        parts = _turned(g, parts, 4, back, away)
    # One pass over the pixels: times 64, plus 128, rounded half to even, clipped to 0..255.
    level = (g.scalar(1 / 64), g.constant(np.array(128, np.uint8)))
    parts = g.op("QuantizeLinear", parts, *level)
    g.output(parts, "parts", TensorProto.UINT8, [1, 12, "H2", "W2"])
    return parts


def _synthesis_network(g: Graph, cfg: Config, y_hat: str) -> str:
    q16, q8 = _vector(g, "q_s16", cfg.C16), _vector(g, "q_s8", cfg.C8)
    u_hat = g.clip(g.op("Mul", y_hat, g.stored("s_inverse", (cfg.M, 1, 1))), -LIMIT, LIMIT)
    a = g.op("Mul", g.conv(u_hat, "g_s.stem"), q16)
    for i in range(cfg.dec_blocks16):
        a = g.block(a, f"g_s.blocks16.{i}")
    a = g.op("Mul", g.shuffle(g.conv(a, "g_s.up"), 2), q8)
    for i in range(cfg.dec_blocks8):
        a = g.block(a, f"g_s.blocks8.{i}")
    return g.shuffle(g.conv(a, "g_s.head"), 8)


def builders(cfg: Config) -> dict[str, Callable[[Graph, Config], None]]:
    """What builds each graph of a model, by the name of its file."""
    always = (analysis, hyper_analysis, hyper_synthesis, prior, prior_slope, hyper_slope)
    found: dict[str, Callable[[Graph, Config], None]] = {b.__name__: b for b in always}
    found["turned_analysis"] = functools.partial(analysis, turned=True)
    for step in cfg.predictor_steps:
        found[f"predictor_{step}"] = functools.partial(predictor, step=step)
    for band in range(cfg.filter_bands):
        found[f"synthesis_{band}"] = functools.partial(synthesis, band=band)
        found[f"turned_{band}"] = functools.partial(synthesis, band=band, turned=True)
        found[f"correction_{band}"] = functools.partial(correction, band=band)
        if cfg.filter_last_eight:
            found[f"tuned_{band}"] = functools.partial(tuned, band=band)
            found[f"fitting_{band}"] = functools.partial(fitting, band=band)
    return found
