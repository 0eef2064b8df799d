"""What a batch saves: N pictures by one command against N commands with one picture each.

    python benchmarks/batch.py kodak                     all pictures of the folder
    python benchmarks/batch.py kodak --count 6 --cores 2 --options "-q 50 --no-verify"

A batch opens the model once and works on several pictures at a time; a command of its own pays
for Python, imports and model every time. Both make the same files, which is checked. The two are
measured in turn, `--repeats` times, and the medians compared. Seconds are those of one machine
with nothing else running; the ratio is what travels. The exit status is 1 above `--limit`.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from aecodec.batch import PICTURES

ROOT = Path(__file__).resolve().parents[1]


def compress(arguments: Sequence[str]) -> float:
    """Seconds that one `aecodec compress` takes, from start to end of the process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "aecodec", "compress", *arguments]
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise click.ClickException(done.stderr.strip() or f"exit status {done.returncode}")
    return seconds


def measure(pictures: Sequence[str], options: Sequence[str]) -> tuple[float, float]:
    """Seconds of one command for all pictures, and of one command for each of them."""
    with tempfile.TemporaryDirectory(prefix="aecodec-batch-") as folder:
        together, apart = Path(folder, "together"), Path(folder, "apart")
        batch = compress([*pictures, "-o", f"{together}{os.sep}", *options])
        single = sum(compress([path, "-o", f"{apart}{os.sep}", *options]) for path in pictures)
        for file in sorted(apart.iterdir()):
            if file.read_bytes() != (together / file.name).read_bytes():
                raise click.ClickException(f"{file.name}: the batch made another file")
    return batch, single


def find(paths: Sequence[Path], count: int | None) -> list[str]:
    """The pictures among files and in folders, at most `count`, sorted."""
    listed = [sorted(path.iterdir()) if path.is_dir() else [path] for path in paths]
    found = [str(p) for some in listed for p in some if p.suffix.lower() in PICTURES]
    if not found:
        raise click.ClickException("no pictures given")
    return found[:count]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--count", type=click.IntRange(1), help="Take the first so many pictures.")
@click.option("--cores", type=click.IntRange(1), help="Use so many processors.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--options", default="", help="Further options of compress.")
@click.option("--limit", default=0.6, show_default=True, help="Largest ratio that is good.")
def main(
    paths: tuple[Path, ...],
    count: int | None,
    cores: int | None,
    repeats: int,
    options: str,
    limit: float,
) -> None:
    """Compare one command for all PATHS with one command for each."""
    if cores and hasattr(os, "sched_setaffinity"):  # the processes started here inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    pictures = find(paths, count)
    runs = [measure(pictures, shlex.split(options)) for _ in range(repeats)]
    batch, single = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
    ratio = batch / single
    click.echo(f"{len(pictures)} pictures in one command: {batch:.2f} s")
    click.echo(f"{len(pictures)} commands with one picture: {single:.2f} s")
    click.echo(f"ratio: {ratio:.3f} ({'within' if ratio <= limit else 'above'} {limit:g})")
    raise SystemExit(0 if ratio <= limit else 1)


if __name__ == "__main__":
    main()
