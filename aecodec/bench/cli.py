"""The command `aecodec bench`: measure, summarise, plot and write the report."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from aecodec.bench import (
    bd,
    codecs,
    metrics,
    pictures,
    plots,
    provenance,
    records,
    report,
    runner,
    summary,
    timing,
)
from aecodec.bench.pictures import Source

NEEDED = {"bjontegaard": "BD-rates", "matplotlib": "plots"}


Qualities = list[tuple[list[str], tuple[float, ...]]]


def _parse_qualities(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> Qualities:
    """`20,50,80` for every codec or `jpeg=10,20,30` for one -> (codecs, qualities) pairs."""
    parsed: Qualities = []
    for value in values:
        name, _, numbers = value.rpartition("=")
        try:
            names = codecs.expand([name]) if name else list(codecs.REGISTRY)
            parsed.append((names, tuple(float(number) for number in numbers.split(","))))
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    # What was given for all comes first, so that what was given for one codec wins.
    return sorted(parsed, key=lambda pair: -len(pair[0]))


def _list_of(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def parse(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
        names = [name.strip() for name in value.split(",") if name.strip()]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            what = f"unknown name {unknown[0]!r}" if unknown else "no name given"
            raise click.BadParameter(f"{what}; known: {', '.join(known)}")
        return names

    return parse


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", metavar="PICTURES...", nargs=-1, required=True, type=click.Path(
    exists=True, path_type=Path))  # fmt: skip
@click.option("--codecs", "codec_names", default="aec,jpeg,jpeg2000,webp,avif,heic,jxl",
    show_default=True, callback=_list_of(tuple(codecs.REGISTRY)),
    metavar="NAME,...", help="Codecs to run; avif stands for avif and avif-psnr. Only "
    f"when named: aec-slow (effort {codecs.SLOW_EFFORT}), aec-small (the small model) and "
    "aec-small-slow.")  # fmt: skip
@click.option("--qualities", multiple=True, metavar="[CODEC=]Q,Q,...",
    callback=_parse_qualities, help="0..100, for all codecs or for one; repeatable.")  # fmt: skip
@click.option("--metrics", "metric_names", default="psnr,ms_ssim", show_default=True,
    callback=_list_of(tuple(metrics.METRICS)), metavar="NAME,...",
    help="Distances to measure; ssimulacra2 is there too, and slow.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path),
    default=Path("bench-results"), show_default=True,
    help="Folder of the results; a run into the same folder resumes.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), default=lambda: os.cpu_count() or 1,
    help="Pictures measured at once; timing is always serial.")  # fmt: skip
@click.option("--anchor", "anchors", multiple=True,
    help="Codec to compare against; repeatable. Default: jpeg, and vtm-18.0 on Kodak.")  # fmt: skip
@click.option("--bd-method", type=click.Choice(bd.METHODS), default=bd.METHODS[0],
    show_default=True, help="Interpolation of the BD-rate.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(0), default=0, show_default=True,
    help="Then time every codec with so many repeats; 0 measures no time.")  # fmt: skip
@click.option("--time-pictures", type=click.IntRange(1), default=4, show_default=True,
    help="How many of the pictures are timed.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
    help="Threads a codec may use while timed.")  # fmt: skip
@click.option("--report/--no-report", default=True, show_default=True,
    help="Write report.html, which encodes some pictures again at equal bytes.")  # fmt: skip
@click.option("--report-pictures", type=click.IntRange(1), default=6, show_default=True,
    help="How many pictures the report shows.")  # fmt: skip
def bench(
    paths: tuple[Path, ...],
    codec_names: list[str],
    qualities: Qualities,
    metric_names: list[str],
    output: Path,
    jobs: int,
    time_pictures: int,
    **rest: Any,
) -> None:
    """Measure codecs side by side on PICTURES (files or folders).

    Every codec writes real files that are decoded back. Results go to the output folder as
    records.jsonl (as they come; a stopped run resumes), records.csv, summary.md, plots and
    report.html. The exit status is 1 if anything could not be measured.
    """
    sources, problems = pictures.find(paths)
    for problem in problems:
        click.echo(problem, err=True)
    if not sources:
        raise click.ClickException("no pictures to measure")
    versions = _available_codecs(codecs.expand(codec_names))
    wanted = _available_metrics(metric_names)
    chosen = _qualities(list(versions), qualities)
    output.mkdir(parents=True, exist_ok=True)
    settings = {"qualities": chosen, "metrics": wanted, **rest}
    provenance.write(output / "run.json", provenance.describe(versions, settings))

    tasks = runner.plan(sources, versions, chosen, wanted)
    rows = _measure(tasks, output, jobs, problems)
    timings = _time(tasks, sources[:time_pictures], output, rest, problems)
    records.write_csv(output / "records.csv", rows, timings)
    if rows:
        _present(rows, timings, sources, output, rest, problems)
    click.echo(f"results in {output}")
    if problems:
        click.echo(f"{len(problems)} problems:", err=True)
        for problem in problems:
            click.echo(f"  {problem}", err=True)
        raise click.exceptions.Exit(1)


def _available_codecs(names: Sequence[str]) -> dict[str, str]:
    """Codec -> version for those that work here; the others are named."""
    versions = {}
    for name in names:
        version, reason = codecs.probe(name)
        if reason:
            click.echo(f"skipping codec {name}: {reason}", err=True)
        else:
            versions[name] = version
    if not versions:
        raise click.ClickException("none of the codecs works here")
    return versions


def _available_metrics(names: Sequence[str]) -> list[str]:
    """Metrics that can be computed here, psnr always first; the others are named."""
    for name in names:
        module = metrics.missing_module(name)
        if module:
            click.echo(f"skipping metric {name}: {module} is not installed", err=True)
    kept = [name for name in names if name != "psnr" and not metrics.missing_module(name)]
    return ["psnr", *kept]


def _qualities(names: Sequence[str], given: Qualities) -> dict[str, tuple[float, ...]]:
    chosen = {name: codecs.REGISTRY[name].qualities for name in names}
    for some, numbers in given:
        chosen |= {name: numbers for name in some if name in chosen}
    return chosen


@contextlib.contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left on a terminal; one line in a log."""
    with click.progressbar(length=length, label=label, show_eta=True, show_pos=True) as bar:
        yield lambda: bar.update(1)


def _measure(
    tasks: Sequence[runner.Task], output: Path, jobs: int, problems: list[str]
) -> list[records.Record]:
    with _progress("rates", len(tasks)) as step:
        rows, failures = runner.run(
            tasks, output / "records.jsonl", jobs, on_outcome=lambda outcome: step()
        )
    problems += [f"{outcome.task}: {outcome.error}" for outcome in failures]
    return rows


def _time(
    tasks: Sequence[runner.Task],
    sources: Sequence[Source],
    output: Path,
    options: Mapping[str, Any],
    problems: list[str],
) -> list[records.Timing]:
    path = output / "times.jsonl"
    if not options["repeats"]:
        return records.read(path, records.Timing)
    names = {source.name for source in sources}
    own = [task for task in tasks if task.source.name in names]
    with _progress("times", len(own)) as step:
        rows, failed = timing.run(
            own, path, options["repeats"], options["threads"], lambda task, error: step()
        )
    problems += failed
    return rows


def _present(
    rows: Sequence[records.Record],
    timings: Sequence[records.Timing],
    sources: Sequence[Source],
    output: Path,
    options: Mapping[str, Any],
    problems: list[str],
) -> None:
    """Summary on the terminal and in files, plots, report: whatever is installed for it."""
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    for name in missing:
        how = f"{name} is not installed (pip install 'aecodec[bench]')"
        click.echo(f"skipping {NEEDED[name]}: {how}", err=True)
    if "bjontegaard" in missing:
        return
    try:
        found = summary.build(rows, timings, options["anchors"], options["bd_method"])
    except ValueError as error:
        problems.append(f"no summary: {error}")
        return
    summary.write(found, output)
    click.echo(summary.readme_block(found))
    svgs = {} if "matplotlib" in missing else plots.draw_all(found, output)
    if options["report"]:
        shown = [source for source in sources if source.name in found.pictures]
        shown = shown[: options["report_pictures"]]
        with _progress("report", len(shown)) as step:
            problems += report.write(output / "report.html", found, rows, shown, svgs, step)
