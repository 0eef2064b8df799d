"""Draw docs/training.svg from docs/training.json: validation score against minutes of training.

    python tools/plot_training.py

Each entry of the JSON file is a set of weights that was exported, with the minutes of two CPU
cores behind it and its score: the mean over qualities of log2(bpp + lambda * MSE), lower is better.
Those with a "model" are on a line of their own, which leaves the default's where it was then.
Scores of whole files ("files", dashed) compare with one another alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Read the points, draw, save."""
    points = json.loads((DOCS / "training.json").read_text())
    mpl.rcParams["svg.hashsalt"] = "aecodec"  # the same file for the same points
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    blue, orange = "#1f77b4", "#ff7f0e"
    files = [p for p in points if "files" in p]
    small = [p for p in points if "model" in p and p not in files]
    default = [p for p in points if p not in small and p not in files]
    before = [p for p in default if p["minutes"] < small[0]["minutes"]]
    lines = [(default, blue, "o-"), ([before[-1], *small], orange, "o-")]
    lines += [([p for p in files if "model" not in p], blue, "o--")]
    lines += [([p for p in files if "model" in p], orange, "o--")]
    for line, colour, style in lines:
        axes.plot([p["minutes"] for p in line], [p["score"] for p in line], style, color=colour)
    for number, p in enumerate(points):  # by turns under the line and over it, to keep apart
        offset, side = ((5, 5), "left") if number % 2 else ((-5, -12), "right")
        if p in files:
            offset, side = (8, -3), "left"
        axes.annotate(p["what"], (p["minutes"], p["score"]), xytext=offset,
                      textcoords="offset points", ha=side, fontsize=8)  # fmt: skip
    axes.set_xlim(0, 1.35 * max(p["minutes"] for p in points))
    axes.set(xlabel="minutes of training, two CPU cores", ylabel="validation score, bits")
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    figure.savefig(DOCS / "training.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
