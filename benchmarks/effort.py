"""What each level of effort saves and takes: BD-rate and processor time of real files.

    python benchmarks/effort.py kodak                  # every picture and level: hours on one core
    python benchmarks/effort.py kodak --every 4        # every fourth picture

Every picture is written as a file at each level and quality and decoded back; rates are those of
whole files. BD-rates are against the default level, of the mean curve over the pictures (mean bits
per pixel, mean PSNR in dB). Seconds are processor time of all threads of this process for one
encoding, reading, writing and verification left out; they are those of one machine, and the
ratios between levels are what travels.

Points go to points.jsonl in the results' folder as they are measured. What it holds of the same
model and settings is not measured again, so an interrupted run goes on. At the end the table
between the marks in docs/cli.md is written anew from all points of the present model, so that slow
levels can be measured on fewer pictures, or several processes share the work.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from aecodec import __version__, codec, effort, picture, rate
from aecodec.bench.bd import delta
from aecodec.bench.curves import Curve
from aecodec.model import open_model

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / __version__ / "effort"
PAGE = ROOT / "docs" / "cli.md"
BEGIN, END = "<!-- effort:begin, written by benchmarks/effort.py -->", "<!-- effort:end -->"


@dataclass(frozen=True)
class Point:
    """One file. `settings` tells levels of one number apart that do not do the same."""

    model: str
    settings: str
    picture: str
    level: int
    quality: float
    bpp: float
    psnr: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, int, float]:
        """What would be measured again in vain."""
        return self.model, self.settings, self.picture, self.level, self.quality


def measure(path: Path, level: int, quality: float) -> Point:
    """Write a picture and read it back."""
    source = picture.load(path)
    encoder = codec.Encoder(source, effort=level, threads=1, keep=False)
    start = time.process_time()
    data = encoder.encode(quality)
    seconds = time.process_time() - start
    psnr = rate.psnr(source, codec.decode_file(data, threads=1))
    bpp = 8 * len(data) / (source.width * source.height)
    name = open_model().weights.id.hex()
    settings = repr(effort.LEVELS[level])
    return Point(name, settings, path.name, level, quality, bpp, psnr, round(seconds, 3))


def read(file: Path) -> list[Point]:
    """Points of earlier runs."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [Point(**json.loads(line)) for line in lines]


def curve(points: Iterable[Point]) -> Curve:
    """The mean curve of one level."""
    by_quality: dict[float, list[Point]] = {}
    for point in points:
        by_quality.setdefault(point.quality, []).append(point)
    rows = [by_quality[quality] for quality in sorted(by_quality)]
    bpp = tuple(sum(p.bpp for p in row) / len(row) for row in rows)
    psnr = tuple(sum(p.psnr for p in row) / len(row) for row in rows)
    return Curve("effort", "measured", bpp, psnr)


def whole(points: list[Point], level: int) -> dict[str, list[Point]]:
    """Points of a level by picture, of those pictures that have all qualities."""
    qualities = {p.quality for p in points}
    own = [p for p in points if p.level == level]
    found = {name: [p for p in own if p.picture == name] for name in {p.picture for p in own}}
    return {name: row for name, row in found.items() if {p.quality for p in row} == qualities}


def table(points: list[Point]) -> str:
    """BD-rate and time of every level as Markdown, each on the pictures that it was tried on."""
    default = whole(points, effort.DEFAULT)
    lines = [
        "| effort | bytes at equal PSNR | processor time per picture | pictures |",
        "|---:|---:|---:|---:|",
    ]
    for number in sorted({p.level for p in points}):
        pictures = {n: row for n, row in whole(points, number).items() if n in default}
        own = [p for row in pictures.values() for p in row]
        if not own:
            continue
        found = delta(curve(p for name in pictures for p in default[name]), curve(own))
        saved = "default" if number == effort.DEFAULT else f"{found.rate:+.1f} %" if found else "?"
        saved = saved.replace("-", "\N{MINUS SIGN}")
        seconds = math.fsum(p.seconds for p in own) / len(own)  # in whatever order
        lines.append(f"| {number} | {saved} | {seconds:.2g} s | {len(pictures)} |")
    qualities = ", ".join(f"{q:g}" for q in sorted({p.quality for p in points}))
    lines += ["", f"Qualities {qualities}, model {points[0].model}, one core."]
    return "\n".join(lines)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--levels", default="1-9", show_default=True, metavar="FIRST-LAST")
@click.option("--qualities", default="20,40,60,80", show_default=True)
@click.option("--every", type=click.IntRange(1), default=1, help="Take every Nth picture.")
@click.option("--page/--no-page", default=True, help="Write the table in docs/cli.md.")
def main(folder: Path, output: Path, levels: str, qualities: str, every: int, page: bool) -> None:
    """Measure the levels of effort on the pictures of a folder."""
    os.environ["AECODEC_THREADS"] = "1"  # waiting threads would count as work
    output.mkdir(parents=True, exist_ok=True)
    file = output / "points.jsonl"
    known = {point.key for point in read(file)}
    first, last = (int(number) for number in levels.split("-"))
    paths = sorted(folder.glob("*.png"))[::every]
    model = open_model().weights.id.hex()
    for level in range(first, last + 1):
        warm, settings = False, repr(effort.LEVELS[level])
        for path, quality in itertools.product(paths, map(float, qualities.split(","))):
            if (model, settings, path.name, level, quality) in known:
                continue
            if not warm:
                measure(paths[0], min(level, 7), 50.0)  # opens models
                warm = True
            point = measure(path, level, quality)
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(asdict(point)) + "\n")
        click.echo(f"level {level} done")
    present = {number: repr(level) for number, level in effort.LEVELS.items()}
    text = table([p for p in read(file) if p.model == model and p.settings == present[p.level]])
    click.echo(text)
    if page:
        head, rest = PAGE.read_text("utf-8").split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", "utf-8")


if __name__ == "__main__":
    main()
