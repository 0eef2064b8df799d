"""The predictor: means of what is still missing, from the picture as decoded so far.

      context (known u_hat), the prior's means of this step
        -> linear map | shuffle 16 | lapped filter^T -> picture so far (B,C,H,W)
        -> unshuffle 2 | 3x3 convolutions | shuffle 2 -> what is missing (B,C,H,W)
        -> lapped filter | unshuffle 16 | linear map -> what to add to the means

A latent-domain network sees numbers of 16x16 blocks; edges and lines are simple only in pixels.
When three quarters of all elements are known, a picture of them shows most of what the last
quarter must be: a network that takes ringing out of pictures predicts it.

C is 3 colours, or 1: their mean, from which only luma channels are predicted. That is four fifths
of the gain for half of the time.

Everything is exact in integers, like the prior: the linear maps as `Exact` layers, the convolutions
in 8-bit products (`aecodec.training.eight`). Pictures are in units of 8 levels, clipped to
[-32, 32): whole numbers of 1/8 of a level. The convolutions see them in whole levels, and work in
units of 64 levels like the filter after the synthesis, from which they start: with weights eight
times smaller, an optimiser's first steps would wipe them out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aecodec.training.config import Config
from aecodec.training.eight import EightConv, Point, convolve
from aecodec.training.filter import Filter
from aecodec.training.lapped import lap, lapped_matrix
from aecodec.training.layers import (
    GRID,
    LIMIT,
    TOP,
    Exact,
    Kernel,
    Pointwise,
    QualityVectors,
)
from aecodec.training.quarters import put, take

MEAN_GRID = 256  # integer units of means, in u
BLOCK = 256  # samples of a colour
LEVELS = 8.0  # of a picture, per unit
PICTURE = 32.0  # pictures are clipped to [-PICTURE, PICTURE)
SCALE = 8.0  # units of pictures in one of the convolutions
SEEN = 1 / (LEVELS * SCALE)  # of these: what the first one sees is in whole levels
START_GAIN = 0.7  # a filter is shy of what it has never seen: twice what it adds is better


class PredictorBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, which it starts as."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.w1, self.w2 = EightConv(Kernel(c, c), True), EightConv(Kernel(c, c, 0.0))
        self.sum = Point()

    def forward(self, x: Tensor, source: Point) -> Tensor:
        out: Tensor = self.sum(x + self.w2(self.w1(x, source), self.w1.point))
        return out


class PredictorNet(nn.Module):
    """The convolutions of one step: picture so far (B,C,H,W) -> what is missing."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        c, parts = cfg.predictor_width, 4 * cfg.predictor_colours
        self.offsets = QualityVectors(torch.zeros(cfg.anchors, c))  # to the first bias
        self.seen = Point()
        self.first = EightConv(Kernel(parts, c), True)
        self.layers = nn.ModuleList(
            [EightConv(Kernel(c, c), True) for _ in range(cfg.predictor_layers)]
        )
        self.blocks = nn.ModuleList([PredictorBlock(c) for _ in range(cfg.predictor_blocks)])
        self.last = EightConv(Kernel(c, parts, 0.05))
        # Of every channel, what the linear map back is multiplied with.
        self.gain = nn.Parameter(torch.zeros(cfg.M))

    def stream(self) -> list[Point]:
        """The points of the residual stream, which have one scale."""
        parts = [self._last_layer.point]
        for block in self._blocks:
            parts += [block.w2.point, block.sum]
        return parts

    def convolutions(self) -> Iterator[tuple[str, EightConv, Point]]:
        """Name and convolution of every layer, and the point that it reads."""
        yield "first", self.first, self.seen
        point = self.first.point
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, EightConv)
            yield f"layers.{i}", layer, point
            point = layer.point
        for i, block in enumerate(self._blocks):
            yield f"blocks.{i}.w1", block.w1, point
            yield f"blocks.{i}.w2", block.w2, block.w1.point
            point = block.sum
        yield "last", self.last, point

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x in units of 8 levels, quality (B,) 0..100; same units."""
        a = self.seen(F.pixel_unshuffle(x / SCALE, 2))
        a = self.first.point(convolve(self.first.conv, a, self.seen) + self.offsets(quality))
        point = self.first.point
        for layer in self.layers:
            assert isinstance(layer, EightConv)
            a, point = layer(a, point), layer.point
        for block in self._blocks:
            a, point = block(a, point), block.sum
        return F.pixel_shuffle(self.last(a, point), 2) * SCALE

    @property
    def _last_layer(self) -> EightConv:
        layer = self.layers[-1]
        assert isinstance(layer, EightConv)
        return layer

    @property
    def _blocks(self) -> Iterator[PredictorBlock]:
        for block in self.blocks:
            assert isinstance(block, PredictorBlock)
            yield block


class Predictor(nn.Module):
    """One network for each of the steps that have one; the linear maps are common to all."""

    overlap: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.steps, self.colours = cfg.predictor_steps, cfg.predictor_colours
        samples = BLOCK * self.colours
        self.register_buffer("overlap", lapped_matrix(), persistent=False)
        self.picture = Exact(Pointwise(cfg.M, samples), "out", GRID)
        self.back = Exact(Pointwise(samples, cfg.M), "out", MEAN_GRID, PICTURE)
        for module in (self.picture, self.back):
            module.requires_grad_(False)
        self.nets = nn.ModuleDict({str(step): PredictorNet(cfg) for step in cfg.predictor_steps})
        self.quantised = False

    def net(self, step: int) -> PredictorNet:
        """The network of a step of `steps`."""
        net = self.nets[str(step)]
        assert isinstance(net, PredictorNet)
        return net

    @torch.no_grad()
    def follow(
        self, linear_a: Tensor, linear_s: Tensor, bias: Tensor, s: Tensor, luma: Tensor
    ) -> None:
        """Take over the linear path of a codec: matrices (M,768), (768,M), bias (3,), s (M,).

        luma (M,): 1 for channels of luma, which alone take part in a picture of one colour.
        """
        if self.colours == 1:
            linear_s = linear_s.unflatten(0, (3, BLOCK)).mean(0) * luma
            linear_a = linear_a.unflatten(1, (3, BLOCK)).sum(1) * luma[:, None]
            bias = bias.mean(0, keepdim=True)
        self.picture.conv.weight.copy_(linear_s * s / LEVELS)
        self.picture.conv.bias.copy_(bias.repeat_interleave(BLOCK) / LEVELS)
        self.back.conv.weight.copy_(linear_a / s[:, None] * LEVELS)

    @torch.no_grad()
    def start_from(self, band: Filter) -> None:
        """Start every step with the first layers of a trained filter of the synthesis."""
        for net in self.nets.values():
            assert isinstance(net, PredictorNet)
            parts = dict(band.named_modules())
            for name, layer, _ in net.convolutions():
                if name in parts:
                    state = parts[name].state_dict()
                    layer.conv.load_state_dict(of_mean(name, state) if self.colours == 1 else state)
            middle = band.factors.anchors[len(band.factors.anchors) // 2]
            net.first.conv.weight.mul_(middle[:, None, None, None])
            net.first.conv.bias.mul_(middle)
            net.gain.fill_(START_GAIN)

    def forward(self, step: int, context: Tensor, mean: Tensor, quality: Tensor) -> Tensor:
        """What to add to the means of a step, in u.

        context (B,M,h,w): u_hat of earlier steps, else 0; mean as of `quarters.take`, as is the
        result; quality (B,) 0..100.
        """
        with torch.autocast(context.device.type, enabled=False):
            return self._predict(step, context.float(), mean, quality)

    def _predict(self, step: int, context: Tensor, mean: Tensor, quality: Tensor) -> Tensor:
        net = self.net(step)
        u = put(context, self._whole(F.hardtanh(mean, -LIMIT, TOP)), step)
        x = self._picture(self.picture(u))
        x = self._picture(lap(F.pixel_shuffle(x, 16), self.overlap.T))
        missing = self._picture(net(x.contiguous(memory_format=torch.channels_last), quality))
        missing = self._picture(lap(missing, self.overlap))
        found = self.back(F.pixel_unshuffle(missing, 16))
        return take(found * torch.exp(net.gain)[:, None, None], step)

    def _picture(self, x: Tensor) -> Tensor:
        return self._whole(F.hardtanh(x, -PICTURE, PICTURE - 1 / GRID))

    def _whole(self, x: Tensor) -> Tensor:
        if not self.quantised:
            return x
        return x + (torch.floor(x * GRID + 0.5) / GRID - x).detach()


def of_mean(layer: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a layer on three colours (2x2 samples of each), for a picture of their mean."""
    if layer == "first":
        return state | {"weight": state["weight"].unflatten(1, (3, 4)).sum(1)}
    if layer == "last":
        return {part: tensor.unflatten(0, (3, 4)).mean(0) for part, tensor in state.items()}
    return state


def smaller(state: dict[str, Tensor], cfg: Config) -> dict[str, Tensor]:
    """A codec's state without what a smaller predictor lacks: steps, blocks, two of three colours.

    If it has one colour instead of three, the 8-bit scales are to be chosen anew.
    """
    out, own = {}, "predictor.nets."
    for name, tensor in state.items():
        if name.startswith(own):
            of, *rest = name.removeprefix(own).split(".")
            beyond = rest[0] == "blocks" and int(rest[1]) >= cfg.predictor_blocks
            if beyond or int(of) not in cfg.predictor_steps:
                continue
        out[name] = tensor
    for step in cfg.predictor_steps:
        first = out.get(f"{own}{step}.first.conv.weight")
        if cfg.predictor_colours == 1 and first is not None and first.shape[1] == 12:
            _make_of_mean(out, f"{own}{step}.")
    return out


def _make_of_mean(state: dict[str, Tensor], net: str) -> None:
    """Turn the tensors of one step's network, whose names start with `net`, into one colour's."""
    for layer in ("first", "last"):
        conv = f"{net}{layer}.conv."
        found = {part: state[conv + part] for part in ("weight", "bias")}
        state |= {conv + part: tensor for part, tensor in of_mean(layer, found).items()}
    linear = ("predictor.picture.", "predictor.back.")
    for name in list(state):
        if name.startswith(linear) or (name.startswith(net) and name.endswith(".scale")):
            del state[name]
