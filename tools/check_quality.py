"""Do bytes and PSNR rise with quality, and are colours kept? On real files of real pictures.

    python tools/check_quality.py FOLDER... [--step 5]

From 0 to 100 in equal steps, every picture's file must be larger than the one before, and its
PSNR higher. Every violation is printed, and the exit status is 1 if there was one. What cannot
rise strictly is treated so:

- PSNR above 50 dB may stand still or fall, as long as it stays above 50 dB: what is left is the
  rounding to 8 bits. Equal pictures (no error at all) belong here.
- The file of a picture of one single colour may keep its size, but not shrink; so may one that
  keeps the picture exactly.

Then a table: PSNR of R, G and B and their mean shift (decoded minus original, in levels).
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

import aecodec
from aecodec.bench import pictures

SHOWN = (0.0, 10.0, 30.0, 50.0, 75.0, 95.0)
ROUNDING = 50.0  # dB; the mean error is then about half a level


@dataclass(frozen=True)
class Point:
    """One file: quality, bytes, mean squared error and mean shift of R, G, B."""

    quality: float
    size: int
    mse: tuple[float, float, float]
    shift: tuple[float, float, float]

    @property
    def psnr(self) -> float:
        """dB over all samples."""
        return decibel(sum(self.mse) / 3)


def decibel(mse: float) -> float:
    """PSNR of a mean squared error; infinite for equal pictures."""
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def measure(pixels: npt.NDArray[np.uint8], quality: float) -> Point:
    """Code and decode pixels (H,W,3)."""
    data = aecodec.encode(pixels, quality)
    back = np.asarray(aecodec.decode(data).convert("RGB"), np.int64)
    error = (back - pixels).reshape(-1, 3)
    mse, shift = np.square(error).mean(0), error.mean(0)
    return Point(quality, len(data), tuple(mse.tolist()), tuple(shift.tolist()))


def violations(points: list[Point], flat: bool) -> list[str]:
    """What is wrong with the files of one picture, in the order of quality."""
    found = []
    for before, now in itertools.pairwise(points):
        step = f"quality {before.quality:g} -> {now.quality:g}"
        may_stay = flat or before.psnr == now.psnr == math.inf
        if now.size < before.size or (now.size == before.size and not may_stay):
            found.append(f"{step}: {before.size} -> {now.size} bytes")
        if now.psnr <= before.psnr and now.psnr < ROUNDING:
            found.append(f"{step}: {before.psnr:.3f} -> {now.psnr:.3f} dB")
    return found


def row(name: str, point: Point) -> str:
    """A line of the table."""
    channels = " ".join(f"{decibel(mse):6.2f}" for mse in point.mse)
    shifts = " ".join(f"{shift:+6.2f}" for shift in point.shift)
    return (
        f"{name[:28]:28} {point.quality:4g} {point.size:8} {point.psnr:7.2f}  {channels}  {shifts}"
    )


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--step", default=5.0, show_default=True, type=click.FloatRange(0.01, 100))
def main(paths: tuple[Path, ...], step: float) -> None:
    """Check the quality scale on pictures or folders of them."""
    sources, problems = pictures.find(paths)
    found = [f"cannot be checked: {problem}" for problem in problems]
    grid = [i * step for i in range(int(100 / step) + 1)]
    print(f"{'picture':28} {'q':>4} {'bytes':>8} {'dB':>7}  {'R':>6} {'G':>6} {'B':>6}"
          f"  {'R':>6} {'G':>6} {'B':>6}")  # fmt: skip
    for source in sources:
        pixels = np.asarray(pictures.load(source.path))
        points = {q: measure(pixels, q) for q in sorted({*grid, *SHOWN})}
        for quality in SHOWN:
            print(row(source.name, points[quality]), flush=True)
        flat = bool((pixels == pixels[0, 0]).all())
        wrong = violations([points[q] for q in grid], flat)
        found += [f"{source.name}: {line}" for line in wrong]
    print(*found, sep="\n")
    print(f"{len(sources)} pictures, {len(found)} violations")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
