"""Plots of a summary as PNG (light and dark) and SVG (follows the reader's colour scheme).

Learned codecs are solid, classical ones dashed; what was measured in this run has markers, what
others published has none.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aecodec.bench.bd import delta
from aecodec.bench.curves import Curve
from aecodec.bench.metrics import ms_ssim_db
from aecodec.bench.summary import Summary, time_rows

INK = "#010203"
"""Stands for the text colour while an SVG is drawn; replaced by currentColor afterwards."""

THEMES = {"": ("#1f2328", "#ffffff"), "-dark": ("#e6edf3", "#0d1117")}
"""Suffix of the file -> (ink, paper)."""

OWN_COLOUR = "#f2600c"
# Every colour keeps a contrast of 3:1 and more on white and on near-black.
COLOURS = {
    "aec": OWN_COLOUR,
    "aec-slow": "#b85c00",
    "aec-small": "#c77700",
    "aec-small-slow": "#96590a",
    "jpeg": "#8a8f98",
    "jpeg2000": "#b07d3c",
    "webp": "#2f9e5b",
    "avif": "#3b82c4",
    "avif-psnr": "#7c6fe0",
    "heic": "#c44f9b",
    "jxl": "#c9534a",
    "vtm-18.0": "#7d858f",
}
SPARE_COLOURS = (
    "#1c93a8", "#a06bd6", "#6f9330", "#d0527e", "#4f86e0", "#b8811f", "#2d9c83", "#c0643a",
    "#8f7fb0", "#5f9ea0", "#a3876a", "#cf5fc0",
)  # fmt: skip

RATE_LIMIT = 1.6
"""bpp; beyond it photographs look the same with every codec."""

SHOWN_POINTS = 4
"""So many points of every curve are in view, even if the pictures take higher rates."""


def draw_all(summary: Summary, folder: Path) -> dict[str, str]:
    """Write every plot that the summary has data for; name -> SVG text for the report."""
    drawings: dict[str, Callable[[Any], None]] = {}
    if any(curve.bpp for curve in summary.curves if curve.draw):  # not all of them without loss
        drawings["rate-distortion"] = lambda axes: _rate_distortion(axes, summary)
    if all(curve.ms_ssim for curve in summary.measured):
        drawings["rate-ms-ssim"] = lambda axes: _rate_ms_ssim(axes, summary)
    if time_rows(summary):
        drawings["time"] = lambda axes: _time(axes, summary)
    svgs = {}
    for name, draw in drawings.items():
        for suffix, (ink, paper) in THEMES.items():
            (folder / f"{name}{suffix}.png").write_bytes(_render(draw, "png", ink, paper))
        svgs[name] = _adaptive(_render(draw, "svg", INK, "none").decode("utf-8"))
        (folder / f"{name}.svg").write_text(svgs[name], "utf-8")
    return svgs


def _render(draw: Callable[[Any], None], kind: str, ink: str, paper: str) -> bytes:
    matplotlib: Any = importlib.import_module("matplotlib")
    figures: Any = importlib.import_module("matplotlib.figure")
    style = {
        "font.size": 11,
        "text.color": ink,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": ink,
        "grid.alpha": 0.15,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "aecodec",
    }
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(10, 6), facecolor=paper, layout="constrained")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        buffer = io.BytesIO()
        # Without a date equal results give equal files.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
    return buffer.getvalue()


def _adaptive(svg: str) -> str:
    """Let ink follow the colour scheme and drop what does not belong inside a page."""
    svg = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    style = (
        "<style>svg.chart{color:#1f2328;font-family:system-ui,sans-serif}"
        "@media(prefers-color-scheme:dark){svg.chart{color:#e6edf3}}"
        "svg.chart text{fill:currentColor;font-family:inherit!important}</style>"
    )
    return re.sub(r"<svg (.*?)>", rf'<svg class="chart" \1>{style}', svg, count=1, flags=re.DOTALL)


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    spare = iter(SPARE_COLOURS * (1 + len(curves) // len(SPARE_COLOURS)))
    return {curve.name: COLOURS.get(curve.name) or next(spare) for curve in curves}


def _line(axes: Any, curve: Curve, values: Sequence[float], colour: str) -> None:
    own = curve.name == "aec"
    axes.plot(
        curve.bpp,
        values,
        linestyle="-" if curve.learned else (0, (5, 2)),
        linewidth=3.0 if own else 1.4,
        marker=None if curve.published else "o",
        markersize=5 if own else 3.5,
        color=colour,
        label=curve.title,
        zorder=5 if own else 3,
        alpha=1.0 if own or not curve.published else 0.85,
    )


def _ordered(summary: Summary) -> list[Curve]:
    """Curves to draw, ours first, then best first, so that the legend reads as a ranking."""
    anchor = summary.anchors[-1]

    def rank(curve: Curve) -> tuple[bool, float]:
        found = delta(anchor, curve, summary.method)
        return curve.name != "aec", found.rate if found else float("inf")

    return sorted((curve for curve in summary.curves if curve.draw), key=rank)


def _legend(axes: Any) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9.5)


def _limits(axes: Any, curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> None:
    """Fit the view to what lies left of the rate limit."""
    limit = max(RATE_LIMIT, *(1.05 * max(xs[:SHOWN_POINTS]) for xs, _ in curves))
    shown = [y for xs, ys in curves for x, y in zip(xs, ys, strict=True) if x <= limit]
    right = min(limit, 1.05 * max(max(xs) for xs, _ in curves))
    axes.set_xlim(0, right)
    if shown:
        room = 0.03 * (max(shown) - min(shown) or 1.0)
        axes.set_ylim(min(shown) - room, max(shown) + room)


def _rate_distortion(axes: Any, summary: Summary) -> None:
    curves = _ordered(summary)
    colours = _colours(curves)
    for curve in curves:
        _line(axes, curve, curve.psnr, colours[curve.name])
    _limits(axes, [(curve.bpp, curve.psnr) for curve in curves if curve.bpp])
    axes.set_xlabel("bits per pixel (whole file)")
    axes.set_ylabel("PSNR in dB (RGB)")
    axes.set_title(_title(summary), loc="left", fontsize=12)
    _legend(axes)


def _rate_ms_ssim(axes: Any, summary: Summary) -> None:
    curves = [curve for curve in _ordered(summary) if curve.ms_ssim]
    colours = _colours(curves)
    points = []
    for curve in curves:
        values = [ms_ssim_db(value) for value in curve.ms_ssim]
        points.append((curve.bpp, values))
        _line(axes, curve, values, colours[curve.name])
    _limits(axes, points)
    axes.set_xlabel("bits per pixel (whole file)")
    axes.set_ylabel("MS-SSIM in dB, \u221210 log10(1 \u2212 x)")
    axes.set_title(_title(summary), loc="left", fontsize=12)
    _legend(axes)


def _time(axes: Any, summary: Summary) -> None:
    """Seconds per megapixel against BD-rate: left and low is better."""
    anchor = summary.anchors[0]
    colours = _colours(summary.measured)
    for curve, encode, decode, _ in time_rows(summary):
        found = delta(anchor, curve, summary.method)
        if found is None:
            continue
        colour = colours[curve.name]
        axes.plot([decode, encode], [found.rate] * 2, color=colour, alpha=0.4, linewidth=1.2)
        axes.plot(decode, found.rate, "o", color=colour, markersize=8)
        axes.plot(encode, found.rate, "s", color=colour, markersize=8, markerfacecolor="none")
        end = (max(encode, decode), found.rate)  # not on a marker, whichever is slower
        axes.annotate(curve.label, end, (9, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("seconds per megapixel (\u25cf decode, \u25a1 encode), one machine")
    axes.set_ylabel(f"BD-rate against {anchor.title} in %")
    axes.set_title(_title(summary), loc="left", fontsize=12)


def _title(summary: Summary) -> str:
    name = f"{summary.set_name}, " if summary.set_name else ""
    return f"{name}{len(summary.pictures)} pictures"
