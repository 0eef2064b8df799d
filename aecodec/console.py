"""What the command line says: results, errors, a summary, and a bar while it takes long.

Results go to standard output, or to standard error when the file itself goes to standard
output. Errors are one line each on standard error. Colour and the bar are for terminals only.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from aecodec.batch import PIPE
from aecodec.jobs import Outcome

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_BAR = 24  # characters


def shown(text: str) -> str:
    """Text with nothing in it that could steer a terminal or break the line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def error(message: str) -> None:
    """One line on standard error, red where that is a terminal."""
    stream = sys.stderr
    if stream is None:
        return
    name = f"{_RED}aecodec:{_PLAIN}" if _coloured(stream) else "aecodec:"
    stream.write(f"{name} {shown(message)}\n")
    stream.flush()


def describe(report: dict[str, Any]) -> str:
    """The one line about a finished file."""
    names = "standard input" if report["path"] == PIPE else report["path"]
    if report["out"] != PIPE:
        names += f" -> {report['out']}"
    if "source_bytes" not in report:
        picture = f"{report['width']}x{report['height']} {report['mode']}"
        return f"{names}: {picture}, {report['seconds']:.2f} s"
    ratio = report["source_bytes"] / report["bytes"]
    parts = [
        f"{names}: {report['bytes']} bytes",
        f"{ratio:.1f} times smaller" if ratio >= 1 else f"{1 / ratio:.1f} times larger",
        f"{report['bpp']:.3f} bpp",
        "exact" if report.get("exact") else f"quality {report['quality']:g}",
    ]
    if report.get("layered"):
        parts.append("partly exact")
    if "psnr" in report and not report.get("exact"):
        lossless = math.isinf(report["psnr"])
        parts.append("lossless" if lossless else f"{report['psnr']:.2f} dB")
    if math.isfinite(report.get("ssimulacra2", math.inf)):
        parts.append(f"SSIMULACRA 2 {report['ssimulacra2']:.2f}")
    return ", ".join([*parts, f"{report['seconds']:.2f} s"])


class Console:
    """Counts outcomes and reports them in the way that was asked for."""

    def __init__(self, total: int, *, quiet: bool, as_json: bool, payload: bool) -> None:
        self.total, self.quiet, self.as_json = total, quiet, as_json
        self.stream = sys.stderr if payload else sys.stdout
        self.counts = {"ok": 0, "damaged": 0, "skipped": 0, "failed": 0}
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar = _Bar(total) if on_terminal and not quiet else None
        if self.bar and total > 1:
            self.bar.draw(0)

    @property
    def progress(self) -> Callable[[float], None] | None:
        """What to tell how far a single file is, 0 to 1; None where nobody would see it."""
        return self.bar.share if self.bar and self.total == 1 else None

    @property
    def status(self) -> int:
        """Exit status: 1 if anything failed, 3 if anything was damaged, else 0."""
        return 1 if self.counts["failed"] else 3 if self.counts["damaged"] else 0

    def take(self, outcome: Outcome) -> None:
        """Report one outcome."""
        self.counts[outcome.status] += 1
        if self.bar:
            self.bar.clear()
        for line in outcome.message.splitlines():
            error(line)
        if self.as_json:
            self._say(_as_json(outcome))
        elif outcome.report and not self.quiet:
            self._say(shown(describe(outcome.report)))
        elif outcome.status == "skipped" and self.total == 1 and not self.quiet and sys.stderr:
            sys.stderr.write(shown(f"{outcome.job.target} exists already: skipped") + "\n")
        if self.bar and self.total > 1:
            self.bar.draw(sum(self.counts.values()))

    def finish(self) -> None:
        """The summary of several files."""
        if self.bar:
            self.bar.clear()
        if self.total > 1 and not self.quiet and sys.stderr is not None:
            always = ("ok", "failed")
            parts = [f"{self.counts[word]} {word}" for word in always]
            parts += [f"{n} {word}" for word, n in self.counts.items() if n and word not in always]
            sys.stderr.write(", ".join(parts) + "\n")

    def _say(self, line: str) -> None:
        if self.stream is not None:
            self.stream.write(line + "\n")
            self.stream.flush()


class _Bar:
    """`[#####.....] 12/24, 3.1 files/s, 4 s left` on the last line of a terminal.

    Of a single file that takes long: `[#####.....] 50 %, 4 s left`.
    """

    def __init__(self, total: int) -> None:
        self.total, self.start, self.width = total, time.monotonic(), 0

    def draw(self, done: int) -> None:
        """Show so many files as done."""
        bar = "#" * (_BAR * done // self.total)
        text = f"[{bar:.<{_BAR}}] {done}/{self.total}"
        if done:
            speed = done / max(time.monotonic() - self.start, 1e-6)
            text += f", {speed:.1f} files/s, {round((self.total - done) / speed)} s left"
        self._write(text)

    def share(self, done: float) -> None:
        """Show how much of the only file is done, 0 to 1, once that has taken a second."""
        taken = time.monotonic() - self.start
        if not 0 < done < 1:
            self.start = time.monotonic()  # another encoding begins, if any
        elif taken > 1:
            bar = "#" * int(_BAR * done)
            left = round(taken / done * (1 - done))
            self._write(f"[{bar:.<{_BAR}}] {100 * done:.0f} %, {left} s left")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"{text:{self.width}}\r")
        sys.stderr.flush()
        self.width = len(text)

    def clear(self) -> None:
        """Take the line away, so that others can be printed."""
        if self.width:
            sys.stderr.write(" " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _as_json(outcome: Outcome) -> str:
    report = {"path": outcome.job.source, "out": outcome.job.target, "status": outcome.status}
    figures = dict(outcome.report)
    for name in figures.keys() & {"psnr", "ssimulacra2"}:  # JSON has no infinity
        figures[name] = None if math.isinf(figures[name]) else round(figures[name], 3)
    message = {"error": "; ".join(outcome.message.splitlines())} if outcome.message else {}
    return json.dumps(report | figures | message)
