"""Where the milliseconds of aecodec go: a cold command, and a warm encode and decode.

    python benchmarks/stages.py PICTURE [--quality 50] [--threads 2] [--repeats 15]

Cold is a new process that does what `aecodec decompress` does, with a clock between its parts; what
it takes to open graphs is taken out of the decoding that they are opened in.
Warm takes the time inside each part of a call, of the median call by its total. Prints the tables
of docs/speed.md; seconds are those of one machine at one load.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click
from PIL import Image

import aecodec
from aecodec import entropy, prior, search, signs, tile, transforms

COLD = """
import os, sys, time
clock = [float(sys.argv[3]), time.time()]
import aecodec.cli; clock.append(time.time())
import numpy, PIL.Image; clock.append(time.time())
import onnxruntime; clock.append(time.time())
from aecodec import codec, container, model, picture, transforms
data = open(sys.argv[1], "rb").read()
model.open_model(container.read_header(data).model_id.hex())
clock.append(time.time())
open_graph, opening = transforms.OnnxNetworks._open, []
def timed(*arguments):
    start = time.time()
    try:
        return open_graph(*arguments)
    finally:
        opening.append(time.time() - start)
transforms.OnnxNetworks._open = timed  # graphs are opened when they are first run
decoded = codec.decode_file(data)
clock.append(time.time())
picture.save(decoded, sys.argv[2]); clock.append(time.time())
parts = [later - sooner for sooner, later in zip(clock, clock[1:])]
parts[4] += sum(opening)
parts[5] -= sum(opening)
print(parts, flush=True)
os._exit(0)  # as the command does
"""
COLD_PARTS = ("Python starts", "command line (click)", "NumPy and Pillow", "ONNX Runtime",
              "tables and graphs", "decode", "write the PNG")  # fmt: skip
NETWORKS = transforms.OnnxNetworks
WARM_PARTS: tuple[tuple[str, Any, str], ...] = (
    ("g_a (`analysis`)", NETWORKS, "analysis"),
    ("h_a (`hyper_analysis`)", NETWORKS, "hyper_analysis"),
    ("h_s (`hyper_synthesis`)", NETWORKS, "hyper_synthesis"),
    ("prior, four steps (`prior`)", NETWORKS, "prior"),
    ("predictor (`predictor`)", NETWORKS, "predictor"),
    ("range coder", entropy.SymbolEncoder, "put_grouped"),
    ("range coder", entropy.SymbolEncoder, "put_bits"),
    ("range coder", entropy.SymbolDecoder, "get_grouped"),
    ("range coder", entropy.SymbolDecoder, "get_bits"),
    ("symbols by table (NumPy)", entropy.Groups, "__init__"),
    ("what will be zero (NumPy)", search._Search, "_guess"),
    ("choice of symbols (NumPy)", tile, "quantise"),
    ("hiding signs (NumPy)", signs, "hidden"),
    ("symbol checksum", tile.Checksum, "add"),
    ("g_s and filter (`synthesis`)", NETWORKS, "synthesis"),
    ("means and indices (NumPy)", prior.Prior, "_parameters"),
    ("moving symbols (NumPy)", prior.Walk, "scatter"),
)


def cold(file: Path, target: Path) -> dict[str, float]:
    """Seconds of the parts of one new process; what is left is its end."""
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(file), str(target), repr(start)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    total = time.time() - start
    parts = dict(zip(COLD_PARTS, json.loads(done.stdout), strict=True))
    return {**parts, "Python ends": total - sum(parts.values()), "**whole process**": total}


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds inside each warm part while the context lasts."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

        return call

    with ExitStack() as stack:
        for name, owner, attribute in WARM_PARTS:
            wrapper = timed(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, wrapper))
        yield spent


def warm(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of the parts of one call, and the rest of it."""
    with clocks() as spent:
        start = time.perf_counter()
        call()
        total = time.perf_counter() - start
    return {**spent, "the rest": total - sum(spent.values()), "**whole call**": total}


def median_run(runs: list[dict[str, float]]) -> dict[str, float]:
    """The run whose whole is the median: parts of one run add up, medians of parts do not."""

    def whole(run: dict[str, float]) -> float:
        return list(run.values())[-1]

    middle = statistics.median_low([whole(run) for run in runs])
    return next(run for run in runs if whole(run) == middle)


def table(title: str, run: dict[str, float]) -> str:
    """A Markdown table in milliseconds."""
    rows = [f"| {name} | {1000 * seconds:.0f} |" for name, seconds in run.items()]
    return "\n".join([f"| {title} | ms |", "| :--- | ---: |", *rows, ""])


def report(picture: Path, quality: float, threads: int, repeats: int) -> None:
    """Measure and print the three tables."""
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    data = aecodec.encode(image, quality)
    with tempfile.TemporaryDirectory(prefix="aecodec-stages-") as folder:
        file, target = Path(folder, "in.aec"), Path(folder, "out.png")
        file.write_bytes(data)
        runs = [cold(file, target) for _ in range(repeats)]
    click.echo(f"{image.width}x{image.height} pixels, quality {quality:g}, {threads} threads\n")
    click.echo(table("`aecodec decompress`, cold", median_run(runs)))
    calls = {"encode, warm": lambda: aecodec.encode(image, quality),
             "decode, warm": lambda: aecodec.decode(data)}  # fmt: skip
    for title, call in calls.items():
        call()
        click.echo(table(f"`{title}`", median_run([warm(call) for _ in range(repeats)])))


@click.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--quality", default=50.0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=15, show_default=True)
def main(picture: Path, quality: float, threads: int, repeats: int) -> None:
    """Print where the time of one picture goes."""
    with mock.patch.dict(os.environ, {"AECODEC_THREADS": str(threads)}):
        report(picture, quality, threads, repeats)


if __name__ == "__main__":
    main()
