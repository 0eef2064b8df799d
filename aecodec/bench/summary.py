"""Means, Bjontegaard deltas and their Markdown tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aecodec.bench import curves as curve_module
from aecodec.bench.bd import METHODS, MIN_OVERLAP, Delta, delta
from aecodec.bench.curves import PUBLISHED_FOLDER, Curve
from aecodec.bench.records import Record, Timing

COMMON_SPAN = (28.0, 36.0)
"""dB; the range nearly every published curve covers, for figures that compare with one another."""

VISIBLE_SPAN = (30.0, 90.0)
"""SSIMULACRA 2; from low quality to visually lossless, which is what its scale is made for."""


@dataclass(frozen=True)
class Summary:
    """Everything the tables, plots and pages are drawn from."""

    measured: list[Curve]
    published: list[Curve]
    set_name: str | None
    pictures: list[str]
    left_out: list[str]
    """Pictures without a result for every codec and setting: in no mean."""
    by_picture: dict[str, list[Curve]]
    times: list[Timing]
    anchors: list[Curve]
    method: str = METHODS[0]

    @property
    def curves(self) -> list[Curve]:
        return [*self.measured, *self.published]


def build(
    records: Sequence[Record],
    times: Sequence[Timing] = (),
    anchors: Sequence[str] = (),
    method: str = METHODS[0],
    published_folder: Path = PUBLISHED_FOLDER,
) -> Summary:
    """Summarise records; without `anchors`, JPEG and (on Kodak) VTM are compared against."""
    complete, left_out = curve_module.complete_pictures(records)
    measured = curve_module.measured(records, complete)
    set_name, published = curve_module.published(records, published_folder)
    if left_out:
        # Published means are of the whole set; beside means of a part they would mislead.
        set_name, published = None, []
    known = {curve.name: curve for curve in (*measured, *published)}
    wanted = list(anchors) or [name for name in ("jpeg", "vtm-18.0") if name in known]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(f"no curve named {missing[0]!r}; there are: {', '.join(known)}")
    return Summary(
        measured=measured,
        published=published,
        set_name=set_name,
        pictures=complete,
        left_out=left_out,
        by_picture=curve_module.per_picture(records),
        times=list(times),
        anchors=[known[name] for name in wanted or list(known)[:1]],
        method=method,
    )


Table = tuple[list[str], list[list[str]]]
"""Header and rows of cells."""


def markdown(table: Table) -> str:
    """A Markdown table, first column left, the others right."""
    header, rows = table
    rule = [":---"] + ["---:"] * (len(header) - 1)
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, rule, *rows))


def signed(value: float, unit: str, digits: int = 1) -> str:
    """A number with its sign; a true minus sign keeps columns even."""
    text = f"{value:+.{digits}f}".replace("-", "\u2212")
    return f"{text}\u202f{unit}"


def rate_cell(found: Delta | None, with_span: bool = True) -> str:
    """BD-rate with the range it holds for and a dagger where the overlap is small."""
    if found is None:
        return "n/a"
    dagger = " \u2020" if found.doubtful else ""
    span = f" ({found.span[0]:.1f}\u2013{found.span[1]:.1f})" if with_span else ""
    return signed(found.rate, "%") + span + dagger


def bd_rows(summary: Summary, anchor: Curve) -> list[tuple[Curve, Delta | None, Delta | None]]:
    """(curve, delta over the whole overlap, delta over the common span), best first."""
    rows = []
    for curve in summary.curves:
        if curve.name != anchor.name:
            whole = delta(anchor, curve, summary.method)
            rows.append((curve, whole, delta(anchor, curve, summary.method, span=COMMON_SPAN)))
    return sorted(rows, key=lambda row: row[1].rate if row[1] else float("inf"))


def bd_table(summary: Summary, anchor: Curve) -> Table:
    """BD-rate and BD-PSNR of every curve against one anchor."""
    low, high = COMMON_SPAN
    header = [
        "codec",
        "BD-rate (PSNR span in dB)",
        f"BD-rate {low:g}\u2013{high:g} dB",
        "BD-PSNR",
        "overlap",
        "BD-rate in MS-SSIM",
        "BD-rate in SSIMULACRA 2",
    ]
    rows = []
    for curve, whole, common in bd_rows(summary, anchor):
        similarity = delta(anchor, curve, summary.method, metric="ms_ssim")
        quality = signed(whole.quality, "dB", 2) if whole and whole.quality is not None else "n/a"
        rows.append(
            [
                curve.title,
                rate_cell(whole),
                rate_cell(common, with_span=False),
                quality,
                f"{whole.overlap:.0%}" if whole else "n/a",
                rate_cell(similarity, with_span=False),
                rate_cell(visible(summary, anchor, curve)),
            ]
        )
    return header, rows


def visible(summary: Summary, anchor: Curve, curve: Curve) -> Delta | None:
    """Difference at equal SSIMULACRA 2; None where it was not measured."""
    return delta(anchor, curve, summary.method, "ssimulacra2", VISIBLE_SPAN)


def overview_table(summary: Summary) -> Table:
    """One row per codec, one column per anchor, best first; SSIMULACRA 2 where it was measured."""
    header = ["codec", *(f"BD-rate against {anchor.title}" for anchor in summary.anchors)]
    seen = next((anchor for anchor in summary.anchors if anchor.ssimulacra2), None)
    if seen is not None:
        header.append(f"in SSIMULACRA 2, against {seen.title}")
    by_anchor = [
        {curve.name: whole for curve, whole, _ in bd_rows(summary, anchor)}
        for anchor in summary.anchors
    ]

    def order(curve: Curve) -> float:
        found = by_anchor[-1].get(curve.name)
        return found.rate if found else 0.0

    rows = []
    for curve in sorted((c for c in summary.curves if c.draw), key=order):
        cells = []
        for anchor, found in zip(summary.anchors, by_anchor, strict=True):
            cells.append(
                "anchor" if curve.name == anchor.name else rate_cell(found.get(curve.name))
            )
        if seen is not None:
            found_there = "anchor" if curve is seen else rate_cell(visible(summary, seen, curve))
            cells.append(found_there)
        name = f"**{curve.title}**" if curve.name == "aec" else curve.title
        rows.append([name, *cells])
    return header, rows


def readme_block(summary: Summary) -> str:
    """The overview and what its figures mean, as shown on the project's front page."""
    parts = [markdown(overview_table(summary)), method_note(summary), rival_line(summary)]
    return "\n".join(part for part in parts if part)


def rival_line(summary: Summary, name: str = "aec", rival: str = "avif") -> str:
    """One codec beside another by every metric both were measured with; "" without both."""
    known = {curve.name: curve for curve in summary.measured}
    if name not in known or rival not in known:
        return ""
    ours, theirs = known[name], known[rival]
    found = {
        "PSNR": delta(theirs, ours, summary.method),
        "MS-SSIM": delta(theirs, ours, summary.method, metric="ms_ssim"),
        "SSIMULACRA 2": visible(summary, theirs, ours),
    }
    cells = [f"{rate_cell(d, with_span=False)} at equal {m}" for m, d in found.items() if d]
    if not cells:
        return ""
    return f"{ours.label} beside {theirs.label} ({theirs.note}), in bits: {', '.join(cells)}.\n"


def method_note(summary: Summary) -> str:
    """What the figures mean and how they were made, in a few lines."""
    pictures = f"{len(summary.pictures)} pictures"
    name = f"{summary.set_name}, {pictures}" if summary.set_name else pictures
    lines = [
        f"{name}; rate of whole files, RGB PSNR averaged over pictures in dB. Negative BD-rate: "
        f"fewer bits at equal PSNR. Method: {summary.method} over log-rate (library bjontegaard), "
        "averaged over the PSNR span in brackets (dB)."
    ]
    if any(anchor.ssimulacra2 for anchor in summary.anchors):
        low, high = VISIBLE_SPAN
        lines.append(
            "SSIMULACRA 2 is nearer to what people see than PSNR; the last column is at equal "
            f"values of it, from {low:g} (low) to {high:g} (visually lossless) where both reach."
        )
    deltas = [found for a in summary.anchors for _, found, _ in bd_rows(summary, a)]
    if any(found and found.doubtful for found in deltas):
        lines.append(
            f"\u2020 the two curves share less than {MIN_OVERLAP:.0%} of their joint PSNR range: "
            "the figure holds for the span given, not for the whole curve."
        )
    if summary.published:
        lines.append("Published: not run here; points from benchmarks/published.")
    if summary.left_out:
        lines.append("In no mean, results incomplete: " + ", ".join(summary.left_out) + ".")
    return "\n".join(lines) + "\n"


def mean_tables(summary: Summary) -> str:
    """Mean rate and distances of every measured codec at every setting."""
    parts = []
    for curve in summary.measured:
        columns = [("bpp", curve.bpp, 3), ("PSNR dB", curve.psnr, 2)]
        columns += [("MS-SSIM", curve.ms_ssim, 4), ("SSIMULACRA2", curve.ssimulacra2, 1)]
        known = [column for column in columns if column[1]]
        rows = [
            [f"{quality:g}", *(f"{values[i]:.{digits}f}" for _, values, digits in known)]
            for i, quality in enumerate(curve.qualities)
        ]
        table = markdown((["quality", *(name for name, _, _ in known)], rows))
        parts.append(f"### {curve.label}\n\n{curve.note}\n\n{table}")
    return "\n".join(parts)


def agreement_table(summary: Summary) -> Table:
    """Formats measured here against others' measurements of them: a check of this benchmark."""
    own = {curve.name: curve for curve in summary.measured}
    low, high = COMMON_SPAN
    rows = []
    for curve in summary.published:
        if curve.counterpart in own:
            test = own[curve.counterpart]
            whole = delta(curve, test, summary.method)
            common = delta(curve, test, summary.method, span=COMMON_SPAN)
            cells = [rate_cell(whole), rate_cell(common, with_span=False)]
            rows.append([test.label, curve.title, *cells])
    return ["measured here", "against", "BD-rate", f"BD-rate {low:g}\u2013{high:g} dB"], rows


def per_picture_table(summary: Summary) -> Table:
    """BD-rate picture by picture against the first measured anchor, with mean and median."""
    anchor = next((a for a in summary.anchors if not a.published), summary.measured[0])
    names = [curve.name for curve in summary.measured if curve.name != anchor.name]
    labels = {curve.name: curve.label for curve in summary.measured}
    columns: dict[str, list[float]] = {name: [] for name in names}
    rows = []
    for picture, curves in summary.by_picture.items():
        own = {curve.name: curve for curve in curves}
        cells = []
        for name in names:
            found = None
            if anchor.name in own and name in own:
                found = delta(own[anchor.name], own[name], summary.method)
            if found:
                columns[name].append(found.rate)
            cells.append(rate_cell(found, with_span=False))
        rows.append([picture, *cells])
    for title, fold in (("**mean**", statistics.fmean), ("**median**", statistics.median)):
        folded = [signed(fold(columns[n]), "%") if columns[n] else "n/a" for n in names]
        rows.append([title, *folded])
    header = [f"BD-rate against {anchor.label}", *(labels[name] for name in names)]
    return header, rows


def time_rows(summary: Summary) -> list[tuple[Curve, float, float, float | None]]:
    """(codec, encode and decode in seconds per megapixel, peak MiB): medians over files."""
    rows = []
    for curve in summary.measured:
        own = [timing for timing in summary.times if timing.codec == curve.name]
        if own:
            pixels = [1e-6 * t.width * t.height for t in own]
            encode = statistics.median(t.encode_s / p for t, p in zip(own, pixels, strict=True))
            decode = statistics.median(t.decode_s / p for t, p in zip(own, pixels, strict=True))
            peaks = [t.peak_mib for t in own if t.peak_mib is not None]
            rows.append((curve, encode, decode, max(peaks) if peaks else None))
    return rows


def time_table(summary: Summary) -> Table:
    """Seconds per megapixel and peak memory; no rows if nothing was timed."""
    rows = [
        [curve.label, f"{encode:.3f}", f"{decode:.3f}", f"{peak:.0f}" if peak else "n/a"]
        for curve, encode, decode, peak in time_rows(summary)
    ]
    return ["codec", "encode s/MP", "decode s/MP", "peak MiB"], rows


def to_markdown(summary: Summary) -> str:
    """The whole summary as one document."""
    parts = ["# Benchmark\n", readme_block(summary)]
    for anchor in summary.anchors:
        parts += [f"## Against {anchor.title}\n", markdown(bd_table(summary, anchor))]
    times = time_table(summary)
    if times[1]:
        parts += ["## Time and memory\n", "Medians over the files timed, on one machine.\n"]
        parts += [markdown(times)]
    agreement = agreement_table(summary)
    if agreement[1]:
        parts += ["## Agreement with published measurements\n", markdown(agreement)]
    parts += ["## Picture by picture\n", markdown(per_picture_table(summary))]
    parts += ["## Means per setting\n", mean_tables(summary)]
    return "\n".join(parts)


def write(summary: Summary, folder: Path) -> None:
    """summary.md and, per measured codec, curves/<codec>.json in CompressAI's layout."""
    (folder / "summary.md").write_text(to_markdown(summary), "utf-8")
    (folder / "curves").mkdir(exist_ok=True)
    for curve in summary.measured:
        text = json.dumps(curve_module.to_compressai(curve), indent=1)
        (folder / "curves" / f"{curve.name}.json").write_text(text + "\n", "utf-8")
