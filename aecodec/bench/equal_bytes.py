"""Files of different codecs with as nearly the same number of bytes as their settings allow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from aecodec.bench.codecs import Codec

TOLERANCE = 0.01
"""Relative difference in bytes at which a search stops."""

MAX_TRIALS = 7


@dataclass(frozen=True)
class Match:
    """A file near a wanted size."""

    quality: float
    data: bytes

    def off(self, target: int) -> float:
        """Relative difference to the wanted size; positive is larger."""
        return len(self.data) / target - 1.0


def match_bytes(
    codec: Codec, image: Image.Image, target: int, known: Iterable[tuple[float, int]] = ()
) -> Match:
    """Search the quality whose file comes nearest to `target` bytes.

    `known` are (quality, bytes) measured before; they narrow the search. Bytes rise with quality
    about exponentially, so the logarithm is interpolated; the bracket halves when that stalls.
    """
    low, high = 1.0, 100.0
    sizes = {quality: size for quality, size in known if low <= quality <= high and size > 0}
    tried: dict[float, Match] = {}

    def attempt(quality: float) -> Match:
        if quality not in tried:
            tried[quality] = Match(quality, codec.encode(image, quality, 1))
            sizes[quality] = len(tried[quality].data)
        return tried[quality]

    while len(tried) < MAX_TRIALS:
        guess = _guess(sizes, target, low, high)
        if codec.integer_quality:
            guess = float(round(guess))
        if guess in tried:
            guess = _beside(sizes, target, guess, codec.integer_quality, low, high)
        if guess in tried or abs(attempt(guess).off(target)) <= TOLERANCE:
            break
    return min(tried.values(), key=lambda match: abs(math.log(len(match.data) / target)))


def _bracket(sizes: dict[float, int], target: int, low: float, high: float) -> tuple[float, float]:
    below = [quality for quality, size in sizes.items() if size <= target]
    above = [quality for quality, size in sizes.items() if size > target]
    return max(below, default=low), min(above, default=high)


def _guess(sizes: dict[float, int], target: int, low: float, high: float) -> float:
    nearest = min(sizes, key=lambda quality: abs(sizes[quality] - target), default=low)
    if nearest in sizes and abs(sizes[nearest] / target - 1.0) <= TOLERANCE:
        return nearest
    left, right = _bracket(sizes, target, low, high)
    if left not in sizes or right not in sizes or left >= right:
        # Outside what was measured: go to the end first, it may already be too large or small.
        return left if left not in sizes else right
    span = math.log(sizes[right] / sizes[left])
    share = math.log(target / sizes[left]) / span if span > 0 else 0.5
    return left + min(max(share, 0.05), 0.95) * (right - left)


def _beside(
    sizes: dict[float, int], target: int, tried: float, whole: bool, low: float, high: float
) -> float:
    """The neighbour of a quality already tried, on the side where the wanted size must lie."""
    left, right = _bracket(sizes, target, low, high)
    if not whole:
        return (left + right) / 2
    step = 1.0 if sizes[tried] < target else -1.0
    return min(max(tried + step, low), high)
