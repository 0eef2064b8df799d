"""Bjontegaard deltas between two curves, by the library `bjontegaard`.

BD-rate: mean difference of the logarithm of the rate over the quality both curves cover, as a
percentage of the anchor's rate; negative is fewer bits. BD-PSNR: mean difference in dB over the
rates both cover. (G. Bjontegaard, VCEG-M33, 2001; piecewise cubic interpolation after JCTVC-B055.)
The default interpolation is pchip: it never overshoots between points, and it returns the
figures that recent learned codecs publish from their own points.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

from aecodec.bench.curves import Curve

METHODS = ("pchip", "akima")
MIN_POINTS = 4
MIN_OVERLAP = 0.75
"""Share of the two curves' joint quality range that both cover; the library's own bound."""


@dataclass(frozen=True)
class Delta:
    """Difference of a codec against an anchor."""

    rate: float
    """Per cent of the anchor's rate at equal quality."""
    quality: float | None
    """dB (or units of the metric) at equal rate; None over a chosen span."""
    span: tuple[float, float]
    """Quality range the rate difference is averaged over."""
    overlap: float
    """Covered share of the joint quality range, 0..1."""

    @property
    def doubtful(self) -> bool:
        return self.overlap < MIN_OVERLAP


def delta(
    anchor: Curve,
    test: Curve,
    method: str = "pchip",
    metric: str = "psnr",
    span: tuple[float, float] | None = None,
) -> Delta | None:
    """Compare two curves; None if they do not overlap or have too few points.

    With `span` the rate difference is averaged within it only, and the overlap is the covered
    share of it: figures over different spans must not be compared with one another.
    """
    rate_a, quality_a = monotone(anchor, metric)
    rate_t, quality_t = monotone(test, metric)
    if min(len(rate_a), len(rate_t)) < MIN_POINTS:
        return None
    low, high = max(quality_a[0], quality_t[0]), min(quality_a[-1], quality_t[-1])
    outer_low, outer_high = min(quality_a[0], quality_t[0]), max(quality_a[-1], quality_t[-1])
    if span:
        outer_low, outer_high = span
        low, high = max(low, span[0]), min(high, span[1])
    if high <= low:
        return None
    library: Any = importlib.import_module("bjontegaard")
    points = (rate_a, quality_a, rate_t, quality_t)
    common = {"method": method, "require_matching_points": False, "min_overlap": 0}
    percent, f_anchor, f_test = library.bd_rate(*points, interpolators=True, **common)
    quality = None
    if span:
        # The library averages over the whole overlap; its interpolants serve for a part of it.
        logs = f_test.integrate(low, high) - f_anchor.integrate(low, high)
        percent = (10.0 ** (float(logs) / (high - low)) - 1.0) * 100.0
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rates that do not overlap give nan
            found = float(library.bd_psnr(*points, **common))
        quality = None if found != found else found
    overlap = (high - low) / (outer_high - outer_low)
    return Delta(float(percent), quality, (low, high), overlap)


def monotone(curve: Curve, metric: str = "psnr") -> tuple[list[float], list[float]]:
    """Points of a curve without those that cost more bits and are no better.

    Interpolating rate over quality needs quality to rise; an encoder may have a setting that is
    beaten by its neighbour.
    """
    rates: list[float] = []
    qualities: list[float] = []
    for rate, quality in sorted(zip(curve.bpp, curve.values(metric), strict=False)):
        if rate > 0 and (not qualities or quality > qualities[-1]):
            rates.append(rate)
            qualities.append(quality)
    return rates, qualities
