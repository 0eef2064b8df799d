"""The table of docs/cli.md about effort is that of the committed points."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

pytest.importorskip("bjontegaard")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool() -> ModuleType:
    return load_script("benchmarks/effort.py")


def test_a_level_that_needs_fewer_bits_everywhere(tool: ModuleType) -> None:
    points = [
        tool.Point("354e6479", "", name, level, quality, bpp * factor, own + quality / 8, seconds)
        for name, own in (("a.png", 0.0), ("b.png", 3.0))
        for level, factor, seconds in ((1, 1.1, 0.1), (3, 1.0, 0.125), (9, 0.9, 25.0))
        for quality, bpp in ((20.0, 0.2), (40.0, 0.4), (60.0, 0.8), (80.0, 1.6))
        if (level, name) != (9, "b.png") or quality < 50  # interrupted
    ]
    rows = tool.table(points).splitlines()[2:]
    assert rows[0] == "| 1 | +10.0 % | 0.1 s | 2 |"
    assert rows[1] == "| 3 | default | 0.12 s | 2 |"
    assert rows[2] == "| 9 | \N{MINUS SIGN}10.0 % | 25 s | 1 |"
    assert rows[4] == "Qualities 20, 40, 60, 80, model 354e6479, one core."


def test_the_table_in_the_docs_is_that_of_the_committed_points(tool: ModuleType) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    rows = text.split(tool.BEGIN)[1].split(tool.END)[0].strip().splitlines()
    model = rows[-1].split("model ")[1].split(",")[0]
    points = [point for point in tool.read(tool.RESULTS / "points.jsonl") if point.model == model]
    assert points
    assert "\n".join(rows) == tool.table(points)
