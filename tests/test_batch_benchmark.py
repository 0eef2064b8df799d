"""The script that compares one command for many pictures with one command for each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import synthetic
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "batch.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_ratio_decides_the_exit_status(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(synthetic.plane(40, 30)).save(tmp_path / name)
    quick = (tmp_path, "--count", 2, "--repeats", 1, "--options", "--no-verify")
    done = run(*quick, "--limit", 1000)
    assert done.returncode == 0, done.stderr
    seconds = [float(text) for text in re.findall(r": (\d+\.\d+) s$", done.stdout, re.MULTILINE)]
    ratio = re.search(r"^ratio: (\d+\.\d+) \(within 1000\)$", done.stdout, re.MULTILINE)
    assert done.stdout.startswith("2 pictures in one command: ")
    assert len(seconds) == 2
    assert ratio
    assert abs(float(ratio[1]) - seconds[0] / seconds[1]) < 0.02
    assert run(*quick, "--limit", 0.001).returncode == 1


def test_a_picture_that_fails_is_an_error_and_no_figure(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = run(tmp_path, "--repeats", 1)
    assert done.returncode == 1
    assert "bad.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
