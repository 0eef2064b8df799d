"""Where a picture repeats itself: text, screens and drawings, on their own or beside photographs.

    pixels -> promising: whether to try the whole picture exactly
    pixels -> covered: blocks to be kept exactly, over what the transform makes of the rest

What repeats itself is what transform and prior are worst at, and what dictionaries are made for.
Everything here is a matter of encoders: the format does not know of blocks.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Blocks = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float32]

BLOCK = 8  # pixels a side

# A picture is tried exactly where deflate at its quickest makes parts of it so many times smaller.
# That is at most 2.5 for 65 photographs, and above 4 for all that is smaller so than at quality
# 100.
PROMISING = 4.0
_PATCHES, _PATCH = (16, 4), 128  # what is looked at first: down and across, pixels across each

# A run of pixels, longer where there is one colour, is news where a region has it at most so
# often. Seeds of what is kept exactly are blocks whose edges are hardly news, at least 0.5 % of the
# picture: 65 photographs have at most 0.2 %, and pages, screens and charts at least 0.9 %. From
# there it grows over blocks of some news.
_RUN, _GREY_RUN, _SELDOM, _REGION = 4, 8, 2, 1024
_SEED_NEWS, _EDGE, _BUSY, _SEEDS = 0.25, 64, 32, 0.005
_NEWS, _COMPANY, _ENCLOSED, _REACH = 0.6, 4, 6, 32


def promising(pixels: Pixels) -> bool:
    """Whether a picture (H,W) or (H,W,3) repeats itself enough to be tried; takes milliseconds."""
    probe = _patches(pixels).tobytes()
    return len(probe) > PROMISING * len(zlib.compress(probe, 1))


def covered(pixels: Pixels) -> Blocks | None:
    """The blocks (ceil(H/8),ceil(W/8)) that are better kept exactly, None if those are few.

    Of a photograph it takes milliseconds to tell.
    """
    _, seeds = _look(_patches(pixels))
    if seeds.mean() < _SEEDS / 5:  # few of them are looked at
        return None
    calm = np.zeros([-(-side // BLOCK) for side in pixels.shape[:2]], bool)
    seeds = calm.copy()
    step = _REGION // BLOCK
    for top in range(0, len(calm), step):
        for left in range(0, calm.shape[1], step):
            here = slice(top, top + step), slice(left, left + step)
            y, x = top * BLOCK, left * BLOCK
            calm[here], seeds[here] = _look(pixels[y : y + _REGION, x : x + _REGION])
    if seeds.mean() < _SEEDS:
        return None
    calm &= _around(calm) >= _COMPANY
    for _ in range(2):
        calm |= _around(calm) >= _ENCLOSED
    found = seeds & calm
    for _ in range(_REACH):
        found = calm & (_around(found) > 0)
    grown: Blocks = found | (_around(found) >= _ENCLOSED)
    return grown


def enlarged(blocks: Blocks, box: tuple[int, int, int, int]) -> Blocks:
    """Whether each pixel (h,w) of a box (left, top, right, bottom) is in one of the blocks."""
    left, top, right, bottom = box
    rows, columns = np.arange(top, bottom) // BLOCK, np.arange(left, right) // BLOCK
    inside: Blocks = blocks[np.ix_(rows, columns)]
    return inside


def _patches(pixels: Pixels) -> Pixels:
    """Patches from all over a picture, one below the other, or all of a small one."""
    height, width = pixels.shape[:2]
    wide = min(_PATCH, width)
    rows, columns = min(_PATCHES[0], height // BLOCK), min(_PATCHES[1], width // wide)
    if rows < 1 or height * width <= rows * columns * BLOCK * wide:
        return pixels
    found = []
    for row, top in enumerate(np.linspace(0, height - BLOCK, rows).astype(int)):
        for column in range(columns):
            # Elsewhere in its column in every row, as evenly as can be: the golden section.
            free = width / columns - wide
            left = int(column * width / columns + row * 0.618 % 1 * free)
            found.append(pixels[top : top + BLOCK, left : left + wide])
    return np.concatenate(found)


def _look(pixels: Pixels) -> tuple[Blocks, Blocks]:
    """Blocks of a region that hold little news; those that are seeds."""
    green = pixels if pixels.ndim == 2 else pixels[..., 1]
    run = _GREY_RUN if pixels.ndim == 2 else _RUN
    if green.shape[1] < run:
        none = np.zeros([-(-side // BLOCK) for side in green.shape], bool)
        return ~none, none
    news = _news(pixels, run)
    windows = [green[:, place : green.shape[1] - run + 1 + place] for place in range(run)]
    reach = functools.reduce(np.maximum, windows) - functools.reduce(np.minimum, windows)
    busy = np.zeros_like(news)
    busy[:, run - 1 :] = reach >= _BUSY
    edges, new_edges = _mean(busy), _mean(busy * news)
    blocks = _split(green, "edge")
    sharp = blocks.max((1, 3)) - blocks.min((1, 3)) >= _EDGE
    return _mean(news) < _NEWS, sharp & (edges > 0) & (new_edges < _SEED_NEWS * edges)


def _news(pixels: Pixels, run: int) -> Float:
    """(H,W): 1 where a run of pixels ends that the region hardly has elsewhere, else 0."""
    colour = pixels if pixels.ndim == 2 else pixels @ np.array([1, 1 << 8, 1 << 16], np.uint32)
    height, width = colour.shape
    hashed = np.zeros((height, width - run + 1), np.uint32)
    for place in range(run):
        hashed ^= colour[:, place : width - run + 1 + place]
        hashed *= np.uint32(0x9E3779B1)
        hashed ^= hashed >> np.uint32(15)
    bits = max(10, hashed.size.bit_length() + 2)
    hashed >>= np.uint32(32 - bits)
    times = np.bincount(hashed.ravel(), minlength=1 << bits)
    out = np.zeros((height, width), np.float32)
    out[:, run - 1 :] = times[hashed] <= _SELDOM
    return out


def _split(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.generic]:
    """(H,W) -> (rows,8,columns,8), filled up to whole blocks."""
    height, width = values.shape
    missing = [(0, -side % BLOCK) for side in (height, width)]
    padded = np.pad(values, missing, mode=mode) if any(map(any, missing)) else values  # type: ignore[call-overload]
    rows, columns = (side // BLOCK for side in padded.shape)
    return padded.reshape(rows, BLOCK, columns, BLOCK)


def _mean(values: Float) -> Float:
    """The mean of every block, as far as it lies inside."""
    mean: Float = _split(values, "constant").mean((1, 3)) / _inside(*values.shape)
    return mean


def _inside(height: int, width: int) -> Float:
    """The share of every block that lies inside."""
    sides = [
        np.minimum(BLOCK, side - np.arange(0, side, BLOCK)).astype(np.float32) / BLOCK
        for side in (height, width)
    ]
    return np.outer(*sides)


def _around(blocks: Blocks) -> npt.NDArray[np.int8]:
    """How many of a block and its eight neighbours are set."""
    count = np.pad(blocks.astype(np.int8), 1)
    count = count[:-2] + count[1:-1] + count[2:]
    around: npt.NDArray[np.int8] = count[:, :-2] + count[:, 1:-1] + count[:, 2:]
    return around
