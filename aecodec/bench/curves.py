"""Rate-distortion curves of a set of pictures: measured ones and published ones.

A measured curve is the mean over pictures at each setting of a codec: mean bits per pixel of
whole files and mean of per-picture PSNR in dB. Published curves are kept with the same meaning.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aecodec.bench import codecs
from aecodec.bench.records import Record

PUBLISHED_FOLDER = Path(__file__).parents[2] / "benchmarks" / "published"
"""Present in a source checkout; an installed package draws no published curves."""


@dataclass(frozen=True)
class Curve:
    """Points of one codec in the order of rising rate."""

    name: str
    label: str
    bpp: tuple[float, ...]
    psnr: tuple[float, ...]
    """dB, RGB."""
    learned: bool = False
    published: bool = False
    draw: bool = True
    note: str = ""
    counterpart: str = ""
    """Name of the codec that measures the same format here, of a published curve."""
    ms_ssim: tuple[float, ...] = ()
    ssimulacra2: tuple[float, ...] = ()
    qualities: tuple[float, ...] = ()
    """Empty for a published curve."""

    @property
    def title(self) -> str:
        return f"{self.label} (published)" if self._says_published else self.label

    @property
    def _says_published(self) -> bool:
        return self.published and "published" not in self.label

    def values(self, metric: str) -> tuple[float, ...]:
        """The points' values of psnr, ms_ssim or ssimulacra2; empty if not known."""
        found: tuple[float, ...] = getattr(self, metric)
        return found


def complete_pictures(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """(pictures that have every codec and setting, the others).

    Means are over the same pictures for every codec, or they would compare different sets.
    """
    settings = {(record.codec, record.quality) for record in records}
    found: dict[str, set[tuple[str, float]]] = defaultdict(set)
    for record in records:
        found[record.picture].add((record.codec, record.quality))
    complete = sorted(name for name, has in found.items() if has == settings)
    return complete, sorted(set(found) - set(complete))


def measured(records: Iterable[Record], pictures: Iterable[str]) -> list[Curve]:
    """Mean curves over the named pictures, codecs in the order of the registry."""
    wanted = set(pictures)
    groups: dict[str, dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.picture in wanted:
            groups[record.codec][record.quality].append(record)
    return [_mean_curve(name, groups[name]) for name in codecs.REGISTRY if name in groups]


def per_picture(records: Iterable[Record]) -> dict[str, list[Curve]]:
    """The curves of every single picture."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.picture].append(record)
    return {name: measured(groups[name], [name]) for name in sorted(groups)}


def _mean_curve(name: str, by_quality: dict[float, list[Record]]) -> Curve:
    codec = codecs.REGISTRY[name]
    rows = []
    for quality, group in by_quality.items():
        psnr = _mean([record.psnr for record in group])
        # Lossless files have no PSNR: such a setting is no point of a curve.
        if psnr is not None:
            rows.append((_mean([record.bpp for record in group]) or 0.0, psnr, quality, group))
    rows.sort(key=lambda row: row[:3])

    def column(metric: str) -> tuple[float, ...]:
        means = [_mean([getattr(record, metric) for record in group]) for *_, group in rows]
        known = tuple(mean for mean in means if mean is not None)
        return known if len(known) == len(rows) else ()

    return Curve(
        name=name,
        label=codec.label,
        bpp=tuple(row[0] for row in rows),
        psnr=tuple(row[1] for row in rows),
        learned=codec.learned,
        note=codec.settings,
        ms_ssim=column("ms_ssim"),
        ssimulacra2=column("ssimulacra2"),
        qualities=tuple(row[2] for row in rows),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def published(
    records: Iterable[Record], folder: Path = PUBLISHED_FOLDER
) -> tuple[str | None, list[Curve]]:
    """(name of the set, its published curves) if exactly its pictures were measured.

    Pictures are recognised by their pixels, so a folder of another resolution or with a picture
    missing is not compared with numbers of the whole set.
    """
    pixels = {record.pixels for record in records}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        if pixels == set(content["pictures"].values()):
            return content["set"], [_published_curve(entry) for entry in content["curves"]]
    return None, []


def _published_curve(entry: dict[str, Any]) -> Curve:
    return Curve(
        name=entry["name"],
        label=entry["label"],
        bpp=tuple(entry["bpp"]),
        psnr=tuple(entry["psnr"]),
        learned=entry["learned"],
        published=True,
        draw=entry["draw"],
        counterpart=entry.get("counterpart", ""),
        note="; ".join(part for part in (entry["note"], entry["source"]) if part),
    )


def to_compressai(curve: Curve) -> dict[str, Any]:
    """The layout of CompressAI's result files, so that its plotting tools read ours."""
    results = {"bpp": list(curve.bpp), "psnr-rgb": list(curve.psnr)}
    if curve.ms_ssim:
        results["ms-ssim-rgb"] = list(curve.ms_ssim)
    if curve.qualities:
        results["quality"] = list(curve.qualities)
    return {"name": curve.label, "description": curve.note, "results": results}
