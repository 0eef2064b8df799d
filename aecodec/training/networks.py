"""The networks that `aecodec.training.model` puts together, where the way of the data is drawn.

The probability path, h_s and the prior, has only layers that are exact in integers. Filter and
predictor have modules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aecodec.training.config import Config
from aecodec.training.eight import EightBlock, EightConv, Point, convolve
from aecodec.training.layers import LIMIT, TOP, Block, Exact, ExactBlock, Pointwise

MEAN_GRID, SCALE_GRID = 256, 64  # integer units of the prior's outputs (mean in u, index)


class Analysis(nn.Module):
    """g_a without its linear path: x / 64 (B,3,H,W) -> (B,M,H/16,W/16) in units of s."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.stem = Pointwise(192, cfg.C8)
        self.blocks8 = nn.Sequential(*[Block(cfg.C8) for _ in range(cfg.enc_blocks8)])
        self.down = Pointwise(4 * cfg.C8, cfg.C16)
        self.blocks16 = nn.Sequential(*[Block(cfg.C16) for _ in range(cfg.enc_blocks16)])
        self.head = Pointwise(cfg.C16, cfg.M, 0.02)

    def forward(self, x: Tensor, q8: Tensor, q16: Tensor) -> Tensor:
        a = self.blocks8(self.stem(F.pixel_unshuffle(x, 8)) * q8)
        return self.head(self.blocks16(self.down(F.pixel_unshuffle(a, 2)) * q16))


class Synthesis(nn.Module):
    """g_s without its linear path: u_hat (B,M,H/16,W/16) -> (B,3,H,W) in units of 64 levels."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.stem = Pointwise(cfg.M, cfg.C16)
        self.blocks16 = nn.Sequential(*[Block(cfg.C16) for _ in range(cfg.dec_blocks16)])
        self.up = Pointwise(cfg.C16, 4 * cfg.C8)
        self.blocks8 = nn.Sequential(*[Block(cfg.C8) for _ in range(cfg.dec_blocks8)])
        self.head = Pointwise(cfg.C8, 192, 0.02)

    def forward(self, u_hat: Tensor, q16: Tensor, q8: Tensor) -> Tensor:
        a = self.blocks16(self.stem(u_hat) * q16)
        a = self.blocks8(F.pixel_shuffle(self.up(a), 2) * q8)
        return F.pixel_shuffle(self.head(a), 8)


class HyperAnalysis(nn.Module):
    """h_a: u (B,M,h,w) -> z (B,Z,h/4,w/4); encoder only, so plain floating point."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.stem = Pointwise(cfg.M, cfg.H)
        self.block1 = Block(cfg.H)
        self.down1 = Pointwise(4 * cfg.H, cfg.H)
        self.block2 = Block(cfg.H)
        self.down2 = Pointwise(4 * cfg.H, cfg.Z, 0.5)

    def forward(self, u: Tensor, q_in: Tensor, q_out: Tensor) -> Tensor:
        a = self.block1(self.stem(u) * q_in)
        a = self.block2(self.down1(F.pixel_unshuffle(a, 2)))
        return self.down2(F.pixel_unshuffle(a, 2)) * q_out


class HyperSynthesis(nn.Module):
    """h_s: integer z_hat (B,Z,h/4,w/4) -> common (B,W,h,w), exact path.

    z_hat enters as is: one unit of z is one unit (1.0) of activation, clipped.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.stem = Exact(Pointwise(cfg.Z, cfg.H), "sum")
        self.block1 = ExactBlock(cfg.H)
        self.up1 = Exact(Pointwise(cfg.H, 4 * cfg.H), "sum")
        self.block2 = ExactBlock(cfg.H)
        self.up2 = Exact(Pointwise(cfg.H, 4 * cfg.W), "sum")

    def forward(self, z_hat: Tensor) -> Tensor:
        a = self.block1(self.stem(z_hat.clamp(-LIMIT, TOP)))
        a = self.block2(F.pixel_shuffle(self.up1(a), 2))
        return F.pixel_shuffle(self.up2(a), 2)


class Prior(nn.Module):
    """One net for all four steps; only the 1x1 adaptors differ from step to step.

    Inputs: context (B,M+4,h,w): u_hat so far (0 where not coded yet) and four planes that
    mark the position in the 2x2 cell; common (B,W,h,w) = h_s + quality vector. Output
    (B,2M,h,w): means in units of s, then scale indices relative to the quality's shift.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.source = Point()
        self.enter = nn.ModuleList([Pointwise(cfg.M + 4 + cfg.W, cfg.W) for _ in range(4)])
        self.entered = Point()
        self.blocks = nn.ModuleList(
            [EightBlock(cfg.W, cfg.prior_kernel) for _ in range(cfg.prior_blocks)]
        )
        self.mean = Exact(Pointwise(cfg.W, cfg.M, 0.1), "out", MEAN_GRID)
        self.scale = Exact(Pointwise(cfg.W, cfg.M, 0.1), "out", SCALE_GRID)

    def stream(self) -> list[Point]:
        """The points of the residual stream, which have one scale."""
        parts = [self.entered]
        for block in self.blocks:
            assert isinstance(block, EightBlock)
            parts += block.stream()
        return parts

    def layers(self) -> Iterator[tuple[str, EightConv, Point]]:
        """Name and convolution of every layer of the blocks, and the point that it reads."""
        point = self.entered
        for i, block in enumerate(self.blocks):
            assert isinstance(block, EightBlock)
            for name, layer, source in block.layers(point):
                yield f"blocks.{i}.{name}", layer, source
            point = block.sum2

    def forward(self, step: int, context: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
        a, point = self.source(torch.cat([context, common], 1)), self.source
        adaptor = self.enter[step]
        assert isinstance(adaptor, Pointwise)
        a, point = self.entered(convolve(adaptor, a, point)), self.entered
        for block in self.blocks:
            assert isinstance(block, EightBlock)
            a, point = block(a, point), block.sum2
        return self.mean(a), self.scale(a)
