"""The checker of the quality scale, and the stress set that it is run on."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "check_quality.py"))


def points(tool: dict[str, Any], *values: tuple[int, float]) -> list[Any]:
    """Points of (bytes, mean squared error)."""
    return [
        tool["Point"](5.0 * i, size, (mse, mse, mse), (0.0, 0.0, 0.0))
        for i, (size, mse) in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "flat", "count"),
    [
        (((10, 9.0), (11, 8.0), (12, 7.0)), False, 0),
        (((10, 9.0), (10, 8.0)), False, 1),  # no larger
        (((10, 9.0), (10, 8.0)), True, 0),
        (((10, 9.0), (9, 8.0)), True, 1),  # smaller, even of one colour
        (((10, 9.0), (11, 0.0), (11, 0.0)), False, 0),  # exact from some quality on
        (((10, 0.0), (9, 0.0)), False, 1),
        (((10, 9.0), (11, 9.0)), False, 1),  # no better
        (((10, 9.0), (9, 9.5), (8, 9.6)), False, 4),
        (((10, 0.3), (11, 0.4), (12, 0.0), (13, 0.0), (14, 0.1)), False, 0),  # rounding, lossless
        (((10, 0.3), (11, 0.9)), False, 1),  # back under 50 dB
    ],
)
def test_violations(
    tool: dict[str, Any], values: tuple[tuple[int, float], ...], flat: bool, count: int
) -> None:
    assert len(tool["violations"](points(tool, *values), flat)) == count


def test_status_and_table(tool: dict[str, Any], tmp_path: Path) -> None:
    with Image.open(ROOT / "tests" / "data" / "crop.png") as image:
        image.convert("RGB").crop((0, 0, 96, 80)).save(tmp_path / "parrot.png")
    done = CliRunner().invoke(tool["main"], [str(tmp_path), "--step", "50"])
    assert (done.exit_code, done.output.count("parrot.png")) == (0, 6)
    assert "1 pictures, 0 violations" in done.output
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    done = CliRunner().invoke(tool["main"], [str(tmp_path), "--step", "100"])
    assert done.exit_code == 1
    assert "broken.png" in done.output


def test_the_stress_set_is_the_same_twice(tmp_path: Path) -> None:
    make = runpy.run_path(str(ROOT / "benchmarks" / "stress" / "make.py"))["make"]
    make(tmp_path / "one")
    make(tmp_path / "two")
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(names) == 17
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        with Image.open(tmp_path / "one" / name) as image:
            assert (image.mode, min(image.size) >= 224, max(image.size) <= 512) == (
                "RGB",
                True,
                True,
            )
            assert (image.getcolors(1) is not None) == name.startswith("flat")
