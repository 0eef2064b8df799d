"""Compress a folder tree on many processes or machines, with Dask.

    python examples/compress_tree.py photos archive                      processes of this machine
    python examples/compress_tree.py photos archive --scheduler tcp://host:8786

`aecodec compress -r photos -o archive` does the same on one machine without Dask. With a
scheduler every worker needs aecodec and the same paths. Each worker process opens the model
once, for its first picture. Needs the extra `examples`: pip install 'aecodec[examples]'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
from dask.distributed import Client, LocalCluster, as_completed

import aecodec
from aecodec.batch import PICTURES


def compress(source: Path, target: Path, quality: float) -> str:
    """Done by a worker: one picture; "" or what went wrong with it. Never a half-written file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aecodec.compress(source, target, quality, threads=1)  # the workers share the cores
    except (aecodec.AecError, OSError) as error:
        return str(error)
    return ""


def pairs(folder: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """(picture, .aec file) for every picture of the tree; the suffix stays, so names differ."""
    for source in sorted(folder.rglob("*")):
        if source.suffix.lower() in PICTURES and source.is_file():
            yield source, output / source.relative_to(folder).with_name(f"{source.name}.aec")


def run(client: Client, folder: Path, output: Path, quality: float = 75.0) -> dict[Path, str]:
    """Compress the tree; {picture: what went wrong with it}. What exists already is left out."""
    sources: dict[object, Path] = {}
    futures = []
    for source, target in pairs(folder.absolute(), output.absolute()):
        if not target.exists():
            futures.append(client.submit(compress, source, target, quality, pure=False))
            sources[futures[-1].key] = source
    failed: dict[Path, str] = {}
    for done in as_completed(futures):
        # A worker that died three times over a picture is an error of that picture too.
        said = done.result() if done.status == "finished" else f"{sources[done.key]}: worker lost"
        if said:
            failed[sources[done.key]] = said
    return failed


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("-q", "--quality", default=75.0, show_default=True, type=click.FloatRange(0, 100))
@click.option("--scheduler", help="Address of a running Dask scheduler.  [default: this machine]")
@click.option("-j", "--workers", default=os.cpu_count, type=click.IntRange(1))
def main(folder: Path, output: Path, quality: float, scheduler: str | None, workers: int) -> None:
    """Compress the pictures below FOLDER to .aec files below OUTPUT."""
    cluster = scheduler or LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None
    )
    with Client(cluster) as client:
        failed = run(client, folder, output, quality)
    for message in failed.values():
        click.echo(message, err=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
