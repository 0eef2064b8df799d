"""Rewrite the benchmark block of README.md from committed results.

    python benchmarks/update_readme.py [RESULTS] [--check]

RESULTS is a folder with records.jsonl; without it the newest version's folder for Kodak under
benchmarks/results is taken. Tables and plots in that folder are made again from its records; the
text between the two marks in README.md is replaced. With --check nothing is written and the exit
status is 1 if README.md does not match.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from aecodec.bench import plots, summary
from aecodec.bench.records import Record, Timing, read

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- benchmark:begin, written by benchmarks/update_readme.py -->"
END = "<!-- benchmark:end -->"


def newest_results(root: Path = ROOT) -> Path | None:
    """Folder of the newest release's Kodak results, or None while there are none."""

    def version(folder: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", folder.parent.name)]

    found = [p.parent for p in (root / "benchmarks" / "results").glob("*/kodak/records.jsonl")]
    return max(found, key=version) if found else None


def load(results: Path) -> summary.Summary:
    """Summary of a results folder."""
    records = read(results / "records.jsonl", Record)
    times = read(results / "times.jsonl", Timing)
    return summary.build(records, times, published_folder=ROOT / "benchmarks" / "published")


def block(found: summary.Summary, results: Path, root: Path = ROOT) -> str:
    """The text between the marks, marks included."""
    folder = results.resolve().relative_to(root.resolve()).as_posix()
    plot = (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" '
        f'srcset="{folder}/rate-distortion-dark.png">\n'
        f'  <img alt="Rate-distortion curves" src="{folder}/rate-distortion.png">\n'
        "</picture>\n"
    )
    return f"{BEGIN}\n{summary.readme_block(found)}\n{plot}{END}"


def replaced(readme: str, new: str) -> str:
    """README text with its benchmark block replaced; ValueError if it has no marks."""
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    text, count = re.subn(pattern, lambda match: new, readme, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"README.md needs exactly one block from {BEGIN} to {END}")
    return text


@click.command()
@click.argument("results", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--check", is_flag=True, help="Only compare; exit status 1 if they differ.")
def main(results: Path | None, check: bool) -> None:
    """Regenerate the tables and plots of RESULTS and the README block."""
    results = results or newest_results()
    if results is None:
        raise click.ClickException("no results under benchmarks/results")
    found = load(results)
    readme = ROOT / "README.md"
    before = readme.read_text("utf-8")
    try:
        after = replaced(before, block(found, results))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if check:
        if after != before:
            raise click.ClickException("README.md does not match the committed results")
        return
    summary.write(found, results)
    plots.draw_all(found, results)
    readme.write_text(after, "utf-8")


if __name__ == "__main__":
    main()
