"""The codec: the way data takes through its networks, which are in `aecodec.training.networks`.

      x (B,3,H,W) 0..255
      |--- lapped filter | unshuffle 16 | linear map -----------------.
      |                                                               + -> y (B,M,H/16,W/16)
      '--- g_a: unshuffle 8 | C8 blocks | down 2 | C16 blocks | 1x1 ---'        |
                (left out when the configuration has no encoder blocks)        |
                                                                               |
      y / s  -> h_a -> z (B,Z,H/64,W/64) -> round -> z_hat -> h_s -> common    |
                                                             |                 |
      y * gain[quality] --- four coding steps: ------------- prior ---> r = round(y - mean)
            step k sees common and all y_hat of steps < k,
            codes one channel quarter at each position of a 2x2 cell;
            in some steps the predictor corrects the means, from a picture of what is known
                                                                               |
      x_lin = lapped filter^T(shuffle 16(linear map(y_hat))) [+ g_s, as g_a mirrored]
      x_hat = x_lin + filter: unshuffle 2 | 3x3 convolutions | shuffle 2

Letters are the field's. ``s`` is a fixed per-channel scale (about the standard deviation of
y), so the prior works on u = y / s, which does not depend on the quality; the quality enters
by the step size (``gain``), by learned vectors, and as a shift of the scale index.

The linear path starts as the principal components of 16x16 blocks, luma and chroma apart, so
that step 0 is already a transform codec. Everything from z_hat to (mean, scale index) uses
only layers that `aecodec.prior` can run exactly in integers: 1x1 and depthwise
convolutions, clipped ReLU, clipped residual sums. Activations there live in [-16, 16), those of
h_s on a grid of 1/64, which is -1024..1023 as integers, those of the prior in 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aecodec.training.config import Config
from aecodec.training.filter import FilterBank
from aecodec.training.hyper import HyperCounts
from aecodec.training.lapped import lap, lapped_matrix
from aecodec.training.layers import (
    GRID,
    LIMIT,
    TOP,
    Bottleneck,
    Exact,
    QualityVectors,
    cell_planes,
    ste_round,
)
from aecodec.training.networks import Analysis, HyperAnalysis, HyperSynthesis, Prior, Synthesis
from aecodec.training.predictor import Predictor
from aecodec.training.quarters import put, take
from aecodec.training.symbols import (
    MEAN_UNITS,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEP,
    SymbolModel,
    Tally,
)


class Output(NamedTuple):
    """Result of a training pass; bits are per sample (B,), x_hat is (B,3,H,W) in 0..255."""

    x_hat: Tensor
    bits_y: Tensor
    bits_z: Tensor


class Codec(nn.Module):
    """Everything that is trained; `forward` gives the rate estimate and the reconstruction."""

    overlap: Tensor
    s: Tensor
    grey_mask: Tensor
    worth: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg, self.quantised = cfg, False
        # As released: symbols chosen with a dead zone of this strength; rates of the symbols
        # themselves (hard) rather than of the latent with noise.
        self.deadzone, self.hard = 0.0, False
        self.with_filter = True  # the prior can train without it: see docs/training.md
        self.tally: Tally | None = None  # where to count symbols, see `aecodec.training.symbols`
        # Told of every step: the prior's means in u, residuals in steps, scale indices.
        self.watcher: Callable[[Tensor, Tensor, Tensor], None] | None = None
        k = cfg.anchors
        self.linear_a = nn.Parameter(torch.zeros(cfg.M, 768))
        self.linear_s = nn.Parameter(torch.zeros(768, cfg.M))
        self.linear_bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("overlap", lapped_matrix(), persistent=False)
        self.register_buffer("s", torch.ones(cfg.M))
        self.register_buffer("grey_mask", torch.ones(cfg.M))  # 0: chroma channel
        # What encoders take an error in each channel to count, beside its squared error.
        self.register_buffer("worth", torch.ones(cfg.M))
        self.g_a = Analysis(cfg) if cfg.has_g_a else None
        self.g_s = Synthesis(cfg) if cfg.has_g_s else None
        self.filter = FilterBank(cfg)
        self.h_a = HyperAnalysis(cfg)
        self.h_s, self.prior = HyperSynthesis(cfg), Prior(cfg)
        quality = torch.linspace(0, 100, k)
        step = torch.sqrt(26.0 / torch.exp(cfg.log_lambda(quality)))  # best uniform step
        log_gain = -torch.log(step)[:, None].expand(k, cfg.M).clone()
        self.log_gain = QualityVectors(log_gain)
        self.log_inverse = QualityVectors(-log_gain.clone())
        ones = torch.ones
        self.q_a8, self.q_a16 = QualityVectors(ones(k, cfg.C8)), QualityVectors(ones(k, cfg.C16))
        self.q_s16, self.q_s8 = QualityVectors(ones(k, cfg.C16)), QualityVectors(ones(k, cfg.C8))
        self.q_h, self.q_z = QualityVectors(ones(k, cfg.H)), QualityVectors(ones(k, cfg.Z))
        self.q_prior = QualityVectors(torch.zeros(k, cfg.W))
        self.z_prior = Bottleneck(cfg.Z * k, filters=(3, 3), init_scale=6)
        self.hyper_counts = HyperCounts(k, cfg.Z)
        self.symbols = SymbolModel(cfg.silent_levels)
        self.predictor = Predictor(cfg) if cfg.predictor_steps else None

    @torch.no_grad()
    def start_from_blocks(self, basis: Tensor, std: Tensor, grey: Tensor) -> None:
        """Put principal components (768, M) with their deviations (M,) into the linear path."""
        self.linear_a.copy_(basis.T)
        self.linear_s.copy_(basis)
        self.s.copy_(2.0 ** torch.round(torch.log2(std.clamp(4.0, 256.0))))
        self.grey_mask.copy_(grey)

    def follow_linear_path(self) -> None:
        """Give the predictor, if there is one, the linear path as it is."""
        if self.predictor is not None:
            path = self.linear_a, self.linear_s, self.linear_bias
            self.predictor.follow(*path, self.s, self.grey_mask)

    def set_quantised(self, on: bool) -> None:
        """Run the probability path on its integer grid (as exported) instead of floating point."""
        self.quantised = on
        for module in self.modules():
            if isinstance(module, Exact | Predictor):
                module.quantised = on

    def analysis(self, x: Tensor, quality: Tensor) -> Tensor:
        """x (B,3,H,W) in 0..255, H and W multiples of 64 -> y (B,M,H/16,W/16)."""
        x = x - 128.0
        with torch.autocast(x.device.type, enabled=False):
            flat = F.pixel_unshuffle(lap(x.float(), self.overlap), 16)
            linear = F.conv2d(flat, self.linear_a[:, :, None, None])
        if self.g_a is None:
            return linear
        net = self.g_a(x / 64.0, self.q_a8(quality), self.q_a16(quality))
        return linear + net.float() * self.s[None, :, None, None]

    def synthesis(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat (B,M,h,w) -> x_hat (B,3,16h,16w), neither clipped nor rounded."""
        x_hat = self.linear_synthesis(y_hat)
        if self.g_s is not None:
            u_hat = (y_hat / self.s[None, :, None, None]).clamp(-LIMIT, LIMIT)
            net = self.g_s(u_hat, self.q_s16(quality), self.q_s8(quality))
            x_hat = x_hat + net.float() * 64.0
        return self.restore(x_hat, quality)

    def linear_synthesis(self, y_hat: Tensor) -> Tensor:
        """y_hat (B,M,h,w) -> picture (B,3,16h,16w) around 0, before g_s and filter."""
        with torch.autocast(y_hat.device.type, enabled=False):
            flat = F.conv2d(y_hat.float(), self.linear_s[:, :, None, None])
            flat = lap(F.pixel_shuffle(flat, 16), self.overlap.T)
            return flat + self.linear_bias[None, :, None, None]

    def restore(self, x_hat: Tensor, quality: Tensor) -> Tensor:
        """Picture around 0 (B,3,H,W) -> filtered picture around 128."""
        if not self.with_filter:
            return x_hat + 128.0
        correction = self.filter(x_hat / 64.0, quality)
        return x_hat + correction.float() * 64.0 + 128.0

    def hyper(self, y: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """-> rounded z (straight-through) and the bits of each sample's z (noise estimate)."""
        u = y / self.s[None, :, None, None]
        z = self.h_a(u.clamp(-LIMIT, LIMIT), self.q_h(quality), self.q_z(quality)).float()
        k = self.cfg.anchors
        with torch.autocast(z.device.type, enabled=False):
            # One table per quality bucket: the bottleneck sees z once per bucket, each sample
            # takes its own.
            source = z if self.training else ste_round(z)
            _, lik = self.z_prior(source.repeat(1, k, 1, 1), training=self.training)
        b = (quality / 100.0 * (k - 1)).round().long()
        rows = torch.arange(len(z), device=z.device)
        lik = lik.reshape(len(z), k, *z.shape[1:])[rows, b]
        return ste_round(z), -torch.log2(lik).flatten(1).sum(1)

    def forward(self, x: Tensor, quality: Tensor, grey: Tensor) -> Output:
        """x (B,3,H,W) 0..255, quality (B,) 0..100, grey (B,) bool: code no chroma channel."""
        y_hat, bits_y, bits_z = self._code(x, quality, grey)
        return Output(self.synthesis(y_hat, quality), bits_y, bits_z)

    def coded_latent(self, x: Tensor, quality: Tensor, grey: Tensor) -> Tensor:
        """y_hat (B,M,h,w) in natural units, for the arguments of `forward`."""
        return self._code(x, quality, grey)[0]

    def _code(self, x: Tensor, quality: Tensor, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> y_hat, bits of y and bits of z per sample."""
        # Many 1x1 convolutions follow: twice as fast on CPUs with channels last.
        y = self.analysis(x, quality).contiguous(memory_format=torch.channels_last)
        z_hat, bits_z = self.hyper(y, quality)
        coded = torch.where(grey[:, None], self.grey_mask, torch.ones_like(self.grey_mask))
        # The integer grid is finer than bfloat16: emulate it in float32.
        fast = torch.is_autocast_enabled(x.device.type) and not self.quantised
        with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
            y_hat, bits_y = self.code_latent(y, z_hat, quality, coded[:, :, None, None])
        return y_hat, bits_y, bits_z

    def code_latent(
        self, y: Tensor, z_hat: Tensor, quality: Tensor, coded: Tensor,
        strength: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The four steps: -> y_hat (natural units) and bits per sample; coded (B,M,1,1) 0/1.

        strength (B,M,1,1): of the dead zone, instead of one for all.
        """
        u_to_step, common = self.steps_per_u(quality), self.common(z_hat, quality)
        y_scaled, y_step = y * torch.exp(self.log_gain(quality)), torch.zeros_like(y)
        parts: list[tuple[Tensor, ...]] = []  # residual, symbol, index, coded of every step
        for step in range(4):
            context = self._context(y_step, u_to_step)
            mean_u, index = self.expect(step, context, common, quality)
            mean, index = self.rounded(mean_u * take(u_to_step, step), index)
            now = take(coded, step)
            r = (take(y_scaled, step) - mean) * now
            if self.watcher is not None:
                self.watcher(mean_u, r, index)
            dead = self.deadzone if strength is None else take(strength, step)
            k = self.symbols.choose(r, index, dead)
            # With a latent that learns, gradients go straight through the rounding. With a fixed
            # one nothing learns through y_hat: a mean that does runs away by whole steps.
            y_hat = (k + mean).detach() if self.hard else r + (k - r).detach() + mean
            y_step = put(y_step, y_hat * now, step)
            parts.append((r, k, index, now.expand_as(r)))
        r, k, index, now = (torch.cat(column) for column in zip(*parts, strict=True))
        if self.tally is not None:
            self.tally.add(k, index, now)
        bits = (self._bits(r, k, index) * now).sum((0, 2, 3, 4))
        return y_step * torch.exp(self.log_inverse(quality)), bits

    def seen(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """What coding steps see of decoded latents (natural units): whole numbers in 1 / GRID of u.

        Not y_hat / s: gains of the latent and of its reconstruction have learned apart.
        """
        y_step = y_hat * torch.exp(-self.log_inverse(quality))
        return torch.round(self._context(y_step, self.steps_per_u(quality)) * GRID)

    def _context(self, y_step: Tensor, u_to_step: Tensor) -> Tensor:
        """Latents in steps as networks see them."""
        return self._grid(F.hardtanh(y_step / u_to_step, -LIMIT, TOP))

    def steps_per_u(self, quality: Tensor) -> Tensor:
        """(B,M,1,1): quantisation steps in one unit of u."""
        return torch.exp(self.log_gain(quality)) * self.s[None, :, None, None]

    def common(self, z_hat: Tensor, quality: Tensor) -> Tensor:
        """What all coding steps are told (B,W,h,w), from the hyper-latents and the quality."""
        return F.hardtanh(self.h_s(z_hat) + self._grid(self.q_prior(quality)), -LIMIT, TOP)

    def expect(
        self, step: int, context: Tensor, common: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means in u and scale indices of a step, as `take` cuts it; context as the prior's."""
        mean, index = self.prior(step, torch.cat([context, cell_planes(context)], 1), common)
        mean = take(mean, step).float()
        if self.predictor is not None and step in self.predictor.steps:
            mean = mean + self.predictor(step, context, mean, quality)
        shift = (torch.log(self.steps_per_u(quality)) - math.log(SCALE_MIN)) / SCALE_STEP
        return mean, take(index, step).float() + take(shift, step)

    def rounded(self, mean: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Means in steps and scale indices on their integer grids, when that is asked for."""
        if not self.quantised:
            return mean, index
        return ste_round(mean * MEAN_UNITS) / MEAN_UNITS, ste_round(index)

    def _grid(self, a: Tensor) -> Tensor:
        """Round activations to the integer grid of the exact path, when that is asked for."""
        if not self.quantised:
            return a
        return a + (torch.floor(a * GRID + 0.5) / GRID - a).detach()

    def _bits(self, r: Tensor, k: Tensor, index: Tensor) -> Tensor:
        """Bits of every element, for residuals r coded as symbols k at continuous indices.

        While the latent learns, those of the residual with uniform noise. For a fixed latent
        those of the symbols; these do not say how the mean should move, `_pull` does.
        """
        if self.training and not self.hard:
            return self.symbols.gaussian_bits(r, index, True)
        bits = self.symbols.bits(k, index)
        if not self.training:
            return bits
        pulls = torch.cat([
            self._pull(step, *part)
            for step, part in enumerate(zip(r.split(4), index.detach().split(4), strict=True))
        ])  # fmt: skip
        return bits + (pulls - pulls.detach())

    def _pull(self, step: int, r: Tensor, index: Tensor) -> Tensor:
        """Bits of a step's residuals, of which only the gradient counts: what moves the means."""
        if self.predictor is None or step not in self.predictor.steps:
            return self.symbols.gaussian_bits(r, index, True)
        return self.symbols.smooth_cost(r, index.round().clamp(0.0, SCALE_LEVELS - 1.0))
