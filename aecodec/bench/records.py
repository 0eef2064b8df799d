"""What the benchmark measures, as lines of JSON that survive a killed run.

records.jsonl  one line per picture, codec and quality: rate and distances; deterministic
times.jsonl    one line per picture, codec and quality: seconds and memory of one machine

Rates and times are apart because the first can be compared byte by byte between two runs and
the second cannot.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, TypeVar

Key = tuple[str, str, str, str, float]
"""Picture, hash of its pixels, codec, version, quality."""

METRIC_FIELDS = ("psnr", "ms_ssim", "ssimulacra2")


@dataclass(frozen=True)
class Record:
    """Rate and distances of one file."""

    picture: str
    pixels: str
    """First 16 hex digits of the SHA-256 of size and RGB samples."""
    width: int
    height: int
    codec: str
    version: str
    quality: float
    bytes: int
    """Size of the whole file."""
    psnr: float | None = None
    ms_ssim: float | None = None
    ssimulacra2: float | None = None
    measured: tuple[str, ...] = ("psnr",)
    """Metrics that were computed; a metric may be computed and undefined (None)."""

    @property
    def bpp(self) -> float:
        """Bits per pixel: 8 x bytes of the whole file / pixels."""
        return 8.0 * self.bytes / (self.width * self.height)

    @property
    def key(self) -> Key:
        return self.picture, self.pixels, self.codec, self.version, self.quality


@dataclass(frozen=True)
class Timing:
    """Seconds (median of repeats) and memory of one encode and decode, on one machine."""

    picture: str
    pixels: str
    width: int
    height: int
    codec: str
    version: str
    quality: float
    threads: int
    repeats: int
    encode_s: float
    decode_s: float
    peak_mib: float | None = None
    """Peak resident memory of the process in MiB during one encode and decode; Linux only."""

    @property
    def key(self) -> Key:
        return self.picture, self.pixels, self.codec, self.version, self.quality


Row = TypeVar("Row", Record, Timing)


def to_line(row: Record | Timing) -> str:
    """One line of JSON without its line end; bpp is written for the reader's convenience."""
    values: dict[str, Any] = asdict(row)
    if isinstance(row, Record):
        del values["measured"]
        # A metric is null where it is undefined and absent where it was not asked for.
        for metric in METRIC_FIELDS:
            if metric not in row.measured:
                del values[metric]
        values["bpp"] = round(row.bpp, 6)
    return json.dumps(values, separators=(", ", ": "))


def append(stream: IO[str], row: Record | Timing) -> None:
    """Write one line and push it to the operating system, so a killed run loses nothing."""
    stream.write(to_line(row) + "\n")
    stream.flush()


def read(path: Path, kind: type[Row]) -> list[Row]:
    """All rows of a file; a line cut short by a killed run is left out, as is a missing file."""
    if not path.exists():
        return []
    names = {field.name for field in fields(kind)}
    rows: dict[Key, Row] = {}
    for line in path.read_text("utf-8").splitlines():
        try:
            values = {k: v for k, v in json.loads(line).items() if k in names}
            if kind is Record:
                values["measured"] = tuple(m for m in METRIC_FIELDS if m in values)
            row = kind(**values)
        except (ValueError, TypeError, AttributeError):
            continue
        rows[row.key] = row  # a later line replaces an earlier one
    return list(rows.values())


def rewrite(path: Path, rows: Iterable[Record | Timing]) -> None:
    """Replace a file by sorted rows in one step; equal rows give equal bytes."""
    lines = [to_line(row) + "\n" for row in sorted(rows, key=lambda row: row.key)]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(lines), "utf-8")
    os.replace(partial, path)


def write_csv(path: Path, records: Sequence[Record], times: Sequence[Timing]) -> None:
    """Records and times joined into one table for spreadsheets."""
    by_key = {timing.key: timing for timing in times}
    columns = [f.name for f in fields(Record) if f.name not in ("measured", "version")]
    timing_columns = ["encode_s", "decode_s", "peak_mib", "threads"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*columns, "bpp", *timing_columns, "version"])
        for record in sorted(records, key=lambda row: row.key):
            timing = by_key.get(record.key)
            writer.writerow(
                [getattr(record, name) for name in columns]
                + [round(record.bpp, 6)]
                + [getattr(timing, name, None) for name in timing_columns]
                + [record.version]
            )
