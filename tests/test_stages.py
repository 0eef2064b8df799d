"""benchmarks/stages.py: every part of a call is seen, and the parts make up the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic
from click.testing import CliRunner
from scripts import load_script

import aecodec

ROOT = Path(__file__).resolve().parent.parent
stages = load_script("benchmarks/stages.py")


def test_parts_of_a_warm_call_make_up_the_whole() -> None:
    image = synthetic.picture("RGB", 96, 64).pixels
    data = aecodec.encode(image, 50)
    decoding = stages.warm(lambda: aecodec.decode(data))
    for part in ("range coder", "prior, four steps (`prior`)", "g_s and filter (`synthesis`)"):
        assert decoding[part] > 0
    *parts, whole = decoding.values()
    assert sum(parts) == pytest.approx(whole)
    assert parts[-1] >= 0  # no part is counted inside another
    assert "g_a (`analysis`)" in stages.warm(lambda: aecodec.encode(image, 50))


def test_median_run_is_one_of_the_runs() -> None:
    runs = [{"a": 1.0, "whole": 3.0}, {"a": 9.0, "whole": 2.0}, {"a": 5.0, "whole": 7.0}]
    assert stages.median_run(runs) == runs[0]


def test_command_prints_three_tables() -> None:
    crop = ROOT / "tests" / "data" / "crop.png"
    done = CliRunner().invoke(stages.main, [str(crop), "--repeats", "1", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert done.output.count("| :--- | ---: |") == 3
    assert "write the PNG" in done.output
