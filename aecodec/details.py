"""What `aecodec info` prints; reads files and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from aecodec import batch, console, container, files
from aecodec.api import Info, info
from aecodec.errors import AecError, FileError


def show(paths: Sequence[str], as_json: bool) -> int:
    """Print every file's details on standard output; the exit status."""
    status = 0
    for number, path in enumerate(batch.matching(paths)):
        title = "standard input" if path == batch.PIPE else path
        try:
            data = _read(path)
            found = info(data)
            damaged = [chunk.name for chunk in container.walk(data) if not chunk.intact]
        except FileError as error:
            console.error(str(error))
            status = 1
            continue
        except AecError as error:
            console.error(f"{title}: {error}")
            status = 1
            continue
        if as_json:
            _print(json.dumps({"path": path} | found.as_dict() | {"damaged": damaged}))
        else:
            _print(("\n" if number else "") + _as_text(title, found, damaged))
        if damaged:
            console.error(f"{title}: damaged: {', '.join(damaged)}")
            status = 1
    return status


def _as_text(title: str, found: Info, damaged: list[str]) -> str:
    tiles = f"{found.tiles} of {found.tile} pixels a side" if found.tile else "1"
    sizes = [f"{name} {size}" for name, size in found.chunks if name != "TILE"]
    pixels = sum(size for name, size in found.chunks if name == "TILE")
    chunks = ", ".join([*sizes, f"TILE {pixels}" + (" in all" if found.tiles > 1 else "")])
    turned = ", colours turned" if any(found.axes) else ""
    rows = {
        "size": f"{found.width}x{found.height} {found.mode}{turned}",
        "bytes": f"{found.bytes} ({found.bpp:.3f} bits per pixel)",
        "quality": _quality(found),
        "model": found.model or "none is needed",
        "format": f"version {found.version}",
        "tiles": tiles,
        "chunks": chunks,
        "checksums": "damaged: " + ", ".join(damaged) if damaged else "all match",
    }
    lines = [console.shown(title), *(f"  {name:<10}{value}" for name, value in rows.items())]
    return "\n".join(lines)


def _quality(found: Info) -> str:
    if found.exact:
        return "exact: every sample is kept"
    return f"{found.quality:g}" + (", but parts are exact" if found.layered else "")


def _read(path: str) -> bytes:
    if path != batch.PIPE:
        return files.read_bytes(path)
    if sys.stdin is None or sys.stdin.isatty():
        raise FileError("standard input: is not a file or a pipe")
    return sys.stdin.buffer.read()


def _print(text: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(text + "\n")
