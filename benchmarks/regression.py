"""Compare aecodec's rate-distortion curve on two small pictures with the committed one.

    python benchmarks/regression.py            # exit status 1 if BD-rate rose by more than 1 %
    python benchmarks/regression.py --update   # after a change that is meant to move it

The anchor of the BD-rate is aecodec itself as committed, so no other codec's version matters.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from aecodec.bench import codecs, curves, pictures, runner
from aecodec.bench.bd import delta
from aecodec.bench.curves import Curve

FOLDER = Path(__file__).parent / "regression"
BASELINE = FOLDER / "baseline.json"
QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)
LIMIT = 1.0
"""Per cent of BD-rate that a change may cost unnoticed."""


def measure(codec: str = "aec") -> Curve:
    """Mean curve of the two pictures, through real files as in every benchmark run."""
    sources, problems = pictures.find([FOLDER])
    version, reason = codecs.probe(codec)
    if problems or reason:
        raise click.ClickException("; ".join([*problems, reason]))
    tasks = runner.plan(sources, {codec: version}, {codec: QUALITIES}, ["psnr"])
    with tempfile.TemporaryDirectory() as folder:
        records, failures = runner.run(tasks, Path(folder, "records.jsonl"))
    if failures:
        raise click.ClickException("; ".join(f"{f.task}: {f.error}" for f in failures))
    return curves.measured(records, [source.name for source in sources])[0]


def baseline() -> Curve:
    """The committed curve."""
    if not BASELINE.exists():
        raise click.ClickException("no committed curve yet: run with --update")
    points = json.loads(BASELINE.read_text("utf-8"))
    return Curve("baseline", "committed", tuple(points["bpp"]), tuple(points["psnr"]))


def rise(before: Curve, now: Curve) -> float:
    """BD-rate of `now` against `before` in per cent."""
    found = delta(before, now)
    if found is None:
        raise click.ClickException("the curve does not overlap the committed one")
    return found.rate


@click.command()
@click.option("--update", is_flag=True, help="Write the curve as the new baseline.")
def main(update: bool) -> None:
    """Fail if aecodec needs more bits than the committed curve says."""
    now = measure()
    if update:
        points = {"bpp": now.bpp, "psnr": now.psnr, "qualities": now.qualities}
        BASELINE.write_text(json.dumps(points, indent=1) + "\n", "utf-8")
        return
    percent = rise(baseline(), now)
    click.echo(f"BD-rate against the committed curve: {percent:+.2f} % (limit {LIMIT:+g} %)")
    if percent > LIMIT:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
