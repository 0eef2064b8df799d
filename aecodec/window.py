"""Where the tiles of a picture lie, and what the networks see around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec.tile import ALIGN, LATENT

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Window:
    """A tile with its surroundings, as far as the networks see.

    pixels (H,W,3): the tile padded to whole hyper-latents and grown by the halo, where the
    picture goes on. u (M,H/16,W/16): the latents of these pixels. rows, columns: the tile in
    them. height, width: how much of the window, from its first pixel, is part of the picture
    and not padding.
    """

    pixels: Pixels
    u: Float
    rows: slice
    columns: slice
    height: int
    width: int

    @property
    def inner(self) -> Float:
        """u of the tile alone."""
        return np.ascontiguousarray(self.u[:, self.rows, self.columns])


def padded(length: int) -> int:
    """Smallest multiple of ALIGN that is not below length."""
    return -(-length // ALIGN) * ALIGN


def cut(pixels: Pixels, box: Box) -> Pixels:
    """Pixels (H,W,3) of a box that may reach over the right and bottom edge (replicated)."""
    left, top, right, bottom = box
    part = pixels[top : min(bottom, pixels.shape[0]), left : min(right, pixels.shape[1])]
    if part.ndim == 2:
        part = np.repeat(part[..., None], 3, axis=2)
    missing = (bottom - top - part.shape[0], right - left - part.shape[1])
    return np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def grow(box: Box, halo: int, width: int, height: int) -> Box:
    """A tile's box padded to ALIGN and grown by a halo inside the padded picture."""
    left, top, right, bottom = box
    return (
        max(0, left - halo),
        max(0, top - halo),
        min(padded(width), padded(right) + halo),
        min(padded(height), padded(bottom) + halo),
    )


def inner(box: Box, grown: Box) -> tuple[slice, slice]:
    """Where the padded tile lies in its grown window, in latents: (rows, columns)."""
    left, top = (box[0] - grown[0]) // LATENT, (box[1] - grown[1]) // LATENT
    width = (padded(box[2]) - box[0]) // LATENT
    height = (padded(box[3]) - box[1]) // LATENT
    return slice(top, top + height), slice(left, left + width)


def sight(first: int, last: int, halo: int, length: int) -> slice:
    """The latents, of `length` in a row, that the pixels from first up to last depend on."""
    start, stop = (first - halo) // LATENT, -(-(last + halo) // LATENT)
    return slice(max(0, start), min(length, stop))
