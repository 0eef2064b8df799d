"""What each level of effort saves and takes: BD-rate and processor time of real files.

    python benchmarks/effort.py PICTURES -o docs/effort.json     # about an hour on one core
    python benchmarks/effort.py --table docs/effort.json         # the table of docs/cli.md

Every picture is written as a file at each quality and level and decoded back; rates are those
of whole files. BD-rates are against the default level, of the mean curve over the pictures
(mean bits per pixel, mean PSNR in dB). Seconds are processor time (all threads, of this process
alone) for one encoding without verification, reading and writing left out, after one encoding
that warms up; they are those of one machine, and the ratios between levels are what travels.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from aecodec import __version__, codec, effort, picture, rate
from aecodec.bench.bd import delta
from aecodec.bench.curves import Curve
from aecodec.model import open_model
from aecodec.picture import Picture

QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)


@dataclass(frozen=True)
class Point:
    """One level at one quality: means over the pictures."""

    quality: float
    bpp: float
    psnr: float
    seconds: float


def measure(sources: list[Picture], level: int, quality: float) -> Point:
    """Write and read back every picture."""
    bits, decibels, seconds = 0.0, 0.0, 0.0
    for source in sources:
        start = time.process_time()
        data = codec.encode_picture(source, quality, effort=level, threads=1)
        seconds += time.process_time() - start
        bits += 8 * len(data) / (source.width * source.height)
        decibels += rate.psnr(source, codec.decode_file(data, threads=1))
    count = len(sources)
    return Point(quality, bits / count, decibels / count, seconds / count)


def run(paths: list[Path], levels: list[int], echo: Any) -> dict[str, Any]:
    """All levels at all qualities."""
    sources = [picture.load(path) for path in paths]
    found: dict[str, Any] = {}
    for level in levels:
        measure(sources[:1], level, 50.0)  # opens models
        points = [measure(sources, level, quality) for quality in QUALITIES]
        found[str(level)] = [point.__dict__ for point in points]
        echo(f"level {level}: {sum(p.seconds for p in points) / len(points):.2f} s")
    return {
        "release": __version__,
        "model": open_model().weights.id.hex(),
        "pictures": [path.name for path in paths],
        "levels": found,
    }


def table(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    curves = {
        int(level): Curve(
            level,
            "measured",
            tuple(point["bpp"] for point in points),
            tuple(point["psnr"] for point in points),
        )
        for level, points in record["levels"].items()
    }
    seconds = {
        int(level): sum(point["seconds"] for point in points) / len(points)
        for level, points in record["levels"].items()
    }
    lines = ["| level | bytes at equal PSNR | processor time |", "|---:|---:|---:|"]
    for level, curve in curves.items():
        found = delta(curves[effort.DEFAULT], curve)
        saved = "default" if level == effort.DEFAULT else f"{found.rate:+.1f} %" if found else "-"
        saved = saved.replace("-", "\N{MINUS SIGN}")
        lines.append(f"| {level} | {saved} | {seconds[level]:.2f} s |")
    return "\n".join(lines)


@click.command()
@click.argument("pictures", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to record figures.")
@click.option("--levels", default="1-9", show_default=True, help="FIRST-LAST.")
@click.option("--table", "recorded", type=click.Path(exists=True, path_type=Path))
def main(
    pictures: tuple[Path, ...], output: Path | None, levels: str, recorded: Path | None
) -> None:
    """Measure the levels of effort, or show a record as a table."""
    if recorded:
        click.echo(table(json.loads(recorded.read_text("utf-8"))))
        return
    paths = [p for path in pictures for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    first, last = (int(number) for number in levels.split("-"))
    os.environ["OMP_NUM_THREADS"] = "1"  # waiting threads would count as work
    record = run(paths, list(range(first, last + 1)), click.echo)
    if output:
        output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if str(effort.DEFAULT) in record["levels"]:
        click.echo(table(record))


if __name__ == "__main__":
    main()
