"""Pictures made by code, in integers only, so that they are the same everywhere and for ever."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from aecodec.picture import Picture

ICC = struct.pack(">I", 132) + bytes(32) + b"acsp" + bytes(range(92))
EXIF = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0131, 2, 4, 0x636561) + bytes(4)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def plane(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(height, width): a slope, waves of growing frequency, a disc with a sharp edge, noise."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    slope = (x * (3 + seed) + y * 2) // 5
    wave = np.abs((x * x // (24 + 8 * seed) + y * 5) % 96 - 48)
    disc = (x - width // 3) ** 2 + (y - height // 2) ** 2 < (min(width, height) // 3) ** 2
    noise = ((x * 73856093 ^ y * 19349663 ^ seed * 83492791) >> 7) % 9
    level = 30 + np.abs((slope + 40 * seed) % 256 - 128) + wave // 2 + 60 * disc + noise
    return np.clip(level, 0, 255).astype(np.uint8)


def alpha_plane(width: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, width): clear, a soft edge, opaque, and a few odd samples."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    level = np.clip((x + y - (width + height) // 4) * 24, 0, 255)
    level[(x * 7 + y * 13) % 101 == 0] = 77
    return level.astype(np.uint8)


def picture(mode: str, width: int, height: int, *, metadata: bool = False) -> Picture:
    """A picture of Pillow's mode L, LA, RGB or RGBA; or "orange", RGB with detail of one colour."""
    if mode.startswith("L"):
        pixels = plane(width, height)
    elif mode == "orange":
        grey = plane(width, height).astype(np.int64) - 128
        levels = [grey * 6 // 5 + 140, grey * 3 // 5 + 110, grey // 10 + 100]
        pixels = np.clip(np.dstack(levels), 0, 255).astype(np.uint8)
    else:
        pixels = np.dstack([plane(width, height, seed) for seed in range(3)])
    alpha = alpha_plane(width, height) if mode.endswith("A") else None
    blocks = (ICC, EXIF, XMP) if metadata else (None, None, None)
    return Picture(pixels, alpha, *blocks)


def text(width: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, width): a page of 32 letters, 5x7 pixels of black on white, in no order."""
    letters = (np.arange(32 * 35) * 2654435761 >> 9 & 1).reshape(32, 7, 5) * 255
    y, x = np.mgrid[:height, :width].astype(np.int64)
    which = ((x // 6 * 73856093 ^ y // 9 * 19349663) >> 5) % 32
    inside = (x % 6 < 5) & (y % 9 < 7)
    page = np.where(inside, letters[which, np.minimum(y % 9, 6), np.minimum(x % 6, 4)], 255)
    return page.astype(np.uint8)
