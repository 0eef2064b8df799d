"""The command with the real codec behind it, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aecodec import container


@pytest.fixture(autouse=True)
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """in.png: shapes and texture, small enough for a quick test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    y, x = np.mgrid[0:150, 0:200]
    planes = [128 + 90 * np.sin(x / 17), 255.0 * ((x - 90) ** 2 + (y - 70) ** 2 < 2500), x * 1.0]
    noise = np.random.default_rng(1).normal(0, 6, (150, 200, 1))
    pixels = (np.stack(planes, axis=2) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save("in.png")


def run(*arguments: str, stdin: bytes = b"") -> bytes:
    command = [sys.executable, "-m", "aecodec", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_and_back() -> None:
    run("compress", "in.png", "out.aec")
    line = json.loads(run("info", "--json", "out.aec"))
    assert (line["width"], line["height"], line["quality"]) == (200, 150, 75)
    assert f"model {line['model']}".encode() in run("--version")
    run("decompress", "out.aec", "back.png")
    before, after = (np.asarray(Image.open(name), float) for name in ("in.png", "back.png"))
    assert 10 * np.log10(255**2 / np.square(before - after).mean()) > 24


def test_a_target_through_pipes() -> None:
    png = Path("in.png").read_bytes()
    small, large = (len(run("compress", "-", "-q", q, "--quiet", stdin=png)) for q in ("20", "80"))
    assert small < large
    limit = (small + large) // 2
    data = run("compress", "-", "-", "--size", str(limit), "--quiet", stdin=png)
    assert 0.98 * limit <= len(data) <= limit
    assert run("decompress", "-", "-", "--format", "ppm", stdin=data).startswith(b"P6\n200 150\n")


def test_a_batch_gives_the_files_of_single_runs() -> None:
    for number in range(3):
        Image.open("in.png").rotate(90 * number, expand=True).save(f"{number}.png")
    run("compress", "?.png", "-o", "out", "-j", "2", "--no-verify")
    assert sorted(os.listdir("out")) == ["0.aec", "1.aec", "2.aec"]
    run("compress", "1.png", "--no-verify")
    assert Path("1.aec").read_bytes() == Path("out/1.aec").read_bytes()
    assert container.is_aec(Path("1.aec").read_bytes())
