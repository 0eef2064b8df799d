"""What a choice of symbols costs: J = bits + weight * squared error of the pixels.

The searches of the encoder compare their candidates by J alone: how one was found is free.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec.distortion import squared_error
from aecodec.model import Model
from aecodec.prior import MAX_QUALITY
from aecodec.tile import LATENT, Coded
from aecodec.window import Window, sight

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

# Along the released model's curve, one unit of squared error is worth more bits than the lambda
# of training says; searching with the slope of the curve saves most at equal PSNR.
SLOPE = 1.25

BLOCK = 1152  # pixels a side for which everything that `corrected` needs is held at once


def grey_levels(x_hat: Pixels) -> Pixels:
    """Mean of the three planes, rounded half up: (H,W,3) -> (H,W)."""
    total = x_hat.astype(np.uint16).sum(2)
    grey: Pixels = ((total * 2 + 3) // 6).astype(np.uint8)
    return grey


@dataclass(frozen=True)
class Cost:
    """J for one model, quality (hundredths) and kind of picture."""

    model: Model
    quality: int
    grey: bool

    @functools.cached_property
    def weight(self) -> float:
        """Bits that one unit of squared error of one sample is worth."""
        config = self.model.weights.manifest["config"]
        low, high = math.log(config["lambda_min"]), math.log(config["lambda_max"])
        return SLOPE * math.exp(low + (high - low) * self.quality / MAX_QUALITY) / 3

    @functools.cached_property
    def per_step(self) -> Float:
        """(M,): bits that one squared quantisation step of each channel is worth.

        Channels in which errors show more than their squared error says count for more.
        """
        columns = self.model.weights.tensor("linear_s").astype(np.float64) * 64
        step = self.model.networks.inverse_gain(self.quality)[:, 0, 0]
        squared = np.square(columns).sum(0) * step**2 * self.model.worth
        bits: Float = (self.weight * squared).astype(np.float32)
        return bits

    @functools.cached_property
    def natural_per_u(self) -> Float:
        """(M,1,1): what a decoder makes of one unit of u, in natural units."""
        steps = self.model.at(self.quality, self.grey).steps_per_u().astype(np.float32)
        natural: Float = steps[:, None, None] * self.model.networks.inverse_gain(self.quality)
        return natural

    def surrounded(self, window: Window, y_hat: Float) -> Float:
        """y_hat (M,h,w) of the tile in its window; the halo has its latents unquantised."""
        whole: Float = window.u * self.natural_per_u
        whole[:, window.rows, window.columns] = y_hat
        return whole

    def decoded(self, window: Window, y_hat: Float) -> Pixels:
        """The window (H,W,3) as a decoder would show it; padding as it was given."""
        x_hat = self.model.networks.synthesis(self.surrounded(window, y_hat), self.quality)
        return self._shown(window, x_hat)

    def seen(self, window: Window, decoded: Pixels) -> Float:
        """u (M,h,w) of the tile, as the analysis sees it in the window decoded."""
        u = self.model.networks.analysis(decoded, self.quality)
        return u[:, window.rows, window.columns]

    def corrected(self, window: Window, y_hat: Float) -> tuple[Pixels, Float]:
        """As `decoded`, and what u (M,h,w) of the tile lacks for the window to come out."""
        whole = self.surrounded(window, y_hat)
        x_hat, missing = np.empty_like(window.pixels), np.zeros_like(whole)
        for rows, columns in itertools.product(*map(_blocks, x_hat.shape[:2])):
            high, wide = (
                sight(part.start, part.stop, self.model.halo, length)
                for part, length in zip((rows, columns), whole.shape[1:], strict=True)
            )
            seen = _pixels(high), _pixels(wide)
            # Only errors in the block count, but latents around it may be to blame for them.
            counted = np.zeros(x_hat.shape[:2], np.float32)
            counted[rows, columns] = 1
            counted[window.height :] = counted[:, window.width :] = 0
            y_seen = np.ascontiguousarray(whole[:, high, wide])
            part, lacking = self.model.networks.correction(
                y_seen, window.pixels[seen], counted[seen], self.quality
            )
            missing[:, high, wide] += lacking
            top, left = rows.start - seen[0].start, columns.start - seen[1].start
            x_hat[rows, columns] = part[top:, left:][
                : rows.stop - rows.start, : columns.stop - columns.start
            ]
        return self._shown(window, x_hat), missing[:, window.rows, window.columns]

    def _shown(self, window: Window, x_hat: Pixels) -> Pixels:
        shown = x_hat[: window.height, : window.width]
        whole = window.pixels.copy()
        whole[: window.height, : window.width] = (
            grey_levels(shown)[..., None] if self.grey else shown
        )
        return whole

    def error(self, window: Window, decoded: Pixels) -> float:
        """Sum of squared errors over all samples of the window."""
        return float(squared_error(decoded, window.pixels))

    def total(self, window: Window, coded: Coded, decoded: Pixels) -> float:
        """J of a tile's symbols, where `decoded` is the window decoded from them."""
        return coded.bits(self.model, self.quality) + self.weight * self.error(window, decoded)


def _blocks(length: int) -> Iterator[slice]:
    """A length cut into equal parts of at most BLOCK, whole latents each but the last."""
    count = -(-length // BLOCK)
    side = -(-length // (count * LATENT)) * LATENT
    for start in range(0, length, side):
        yield slice(start, min(length, start + side))


def _pixels(latents: slice) -> slice:
    return slice(latents.start * LATENT, latents.stop * LATENT)
