"""A page to look at: plots, tables and a slider between codecs at equal bytes; no network.

Files that browsers show are embedded as they are; pictures of the other codecs are embedded
decoded, as lossless WebP. Either way the bytes printed are those of the codec's own file.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from aecodec.bench import codecs, metrics, pictures
from aecodec.bench.codecs import Codec
from aecodec.bench.curves import Curve
from aecodec.bench.equal_bytes import Match, match_bytes
from aecodec.bench.pictures import Source
from aecodec.bench.records import Record
from aecodec.bench.summary import (
    Summary,
    Table,
    agreement_table,
    bd_table,
    method_note,
    overview_table,
    per_picture_table,
    time_table,
)

LEVELS = (("Small", 0.2), ("Medium", 0.5))
"""Name and bits per pixel, averaged over the set, of the sizes compared."""

SHOWN_SIDE = (1280, 960)
"""Larger pictures are shown as a crop of this size from their middle, to keep the page small."""

SPAN = re.compile(r" (\([\d.]+\u2013[\d.]+\)( \u2020)?)")
"""The PSNR span behind a BD-rate, as `summary.rate_cell` writes it."""

PLOT_TITLES = {
    "rate-distortion": "Rate and PSNR",
    "rate-ms-ssim": "Rate and MS-SSIM",
    "time": "Time and BD-rate",
}


def write(
    path: Path,
    summary: Summary,
    records: Sequence[Record],
    shown: Sequence[Source],
    svgs: dict[str, str],
    step: Callable[[], None] = lambda: None,
) -> list[str]:
    """Write the page; returns what could not be shown, one line each."""
    problems: list[str] = []
    entries = []
    for source in shown:
        own = [record for record in records if record.picture == source.name]
        entries.append(_picture_entry(source, own, summary, problems))
        step()
    path.write_text(render(summary, entries, svgs), "utf-8")
    return problems


def render(summary: Summary, entries: Sequence[dict[str, Any]], svgs: dict[str, str]) -> str:
    """The page's text from the viewer's data, the tables and the plots."""
    labels = {curve.name: curve.label for curve in summary.measured}
    data = {
        "codecs": [{"name": "original", "label": "Original"}]
        + [{"name": name, "label": label} for name, label in labels.items()],
        "pictures": list(entries),
    }
    # "<" would let a picture's name end the script element.
    embedded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    figures = "".join(
        f"<figure><figcaption>{PLOT_TITLES.get(name, name)}</figcaption>"
        f'<div class="scroll"><div class="plot">{svg}</div></div></figure>'
        for name, svg in svgs.items()
    )
    title = summary.set_name or f"{len(summary.pictures)} pictures"
    page = resources.files("aecodec.bench").joinpath("report.html").read_text("utf-8")
    for key, value in {
        "title": html.escape(f"aecodec benchmark: {title}"),
        "note": "".join(f"<p>{html.escape(x)}</p>" for x in method_note(summary).splitlines()),
        "overview": html_table(overview_table(summary)),
        "plots": figures,
        "details": _details(summary),
        "settings": html_table(_settings(summary.measured)),
        "data": embedded,
    }.items():
        page = page.replace("{{" + key + "}}", value)
    return page


def html_table(table: Table) -> str:
    """A table of escaped cells; ** around a cell makes it bold, as in Markdown."""

    def cell(text: str) -> str:
        bold = text.startswith("**") and text.endswith("**")
        escaped = html.escape(text.strip("*") if bold else text)
        # The span of a BD-rate goes on a line of its own where the page is narrow.
        escaped = SPAN.sub(r' <span class="span">\1</span>', escaped)
        return f"<strong>{escaped}</strong>" if bold else escaped

    header, rows = table
    head = "".join(f'<th scope="col">{cell(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{cell(row[0])}</th>'
        + "".join(f"<td>{cell(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    table_html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table_html}</div>'


def _details(summary: Summary) -> str:
    sections = [(f"Against {a.title}", bd_table(summary, a)) for a in summary.anchors]
    sections.append(("Agreement with published measurements", agreement_table(summary)))
    sections.append(("Picture by picture", per_picture_table(summary)))
    sections.append(("Time and memory, one machine", time_table(summary)))
    return "".join(
        f"<details><summary>{html.escape(title)}</summary>{html_table(table)}</details>"
        for title, table in sections
        if table[1]
    )


def _settings(measured: Sequence[Curve]) -> Table:
    rows = [[c.label, codecs.REGISTRY[c.name].settings, codecs.probe(c.name)[0]] for c in measured]
    return ["codec", "settings", "library"], rows


def _picture_entry(
    source: Source, records: Sequence[Record], summary: Summary, problems: list[str]
) -> dict[str, Any]:
    original = pictures.load(source.path)
    names = [curve.name for curve in summary.measured]
    leader = "aec" if "aec" in names else names[0]
    wanted = [m for m in metrics.METRICS if all(m in record.measured for record in records)]
    levels: list[dict[str, Any]] = []
    for label, bpp in LEVELS:
        target = _leader_bytes(summary, records, leader, bpp)
        if any(level["target"] == target for level in levels):
            continue  # too few settings were measured to tell the sizes apart
        files: list[dict[str, Any]] = []
        for name in names:
            known = [(r.quality, r.bytes) for r in records if r.codec == name]
            try:
                match = match_bytes(codecs.REGISTRY[name], original, target, known)
                files.append(_file_entry(codecs.REGISTRY[name], match, original, target, wanted))
            # As in rate runs: another codec's failure concerns one file only.
            except Exception as error:
                problems.append(f"report: {source.name}: {name}: {error}")
        levels.append({"label": label, "target": target, "files": files})
    crop = _crop(original)
    return {
        "name": source.name,
        "width": crop.width,
        "height": crop.height,
        "cropped": crop.size != original.size,
        "pixels": original.width * original.height,
        "original": _lossless(crop),
        "levels": levels,
    }


def _leader_bytes(summary: Summary, records: Sequence[Record], leader: str, bpp: float) -> int:
    """Size of this picture's file at the leader's setting whose mean rate is nearest to `bpp`.

    The setting, not the rate, is the same for all pictures: a busy picture gets more bytes.
    """
    curve = next(curve for curve in summary.measured if curve.name == leader)
    nearest = min(range(len(curve.bpp)), key=lambda i: abs(curve.bpp[i] - bpp))
    quality = curve.qualities[nearest]
    return next(r.bytes for r in records if r.codec == leader and r.quality == quality)


def _file_entry(
    codec: Codec, match: Match, original: Image.Image, target: int, wanted: Sequence[str]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="aecodec-bench-") as folder:
        path = Path(folder, "picture" + codec.suffix)
        path.write_bytes(match.data)
        decoded = codec.decode(path, 1)
    shown = _crop(decoded)
    if codec.browser_mime and shown.size == decoded.size:
        source = _data_uri(match.data, codec.browser_mime)
    else:
        source = _lossless(shown)
    return {
        "codec": codec.name,
        "bytes": len(match.data),
        "off": round(match.off(target), 4),
        "quality": round(match.quality, 2),
        "metrics": {name: metrics.measure(name, original, decoded) for name in wanted},
        "src": source,
    }


def _crop(image: Image.Image) -> Image.Image:
    width, height = min(image.width, SHOWN_SIDE[0]), min(image.height, SHOWN_SIDE[1])
    if (width, height) == image.size or image.width * image.height <= 1_300_000:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _lossless(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    return _data_uri(buffer.getvalue(), "image/webp")


def _data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
