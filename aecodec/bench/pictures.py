"""Finding and opening the pictures of a benchmark run."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".ppm", ".jpg", ".jpeg", ".webp"))
"""What is taken from a folder; a file named on the command line is taken whatever its name."""


@dataclass(frozen=True)
class Source:
    """A readable picture; its file name identifies it in records, so names are unique."""

    name: str
    path: Path
    pixels: str
    width: int
    height: int


def load(path: Path) -> Image.Image:
    """The picture as 8-bit RGB without metadata, upright: what every codec is given.

    Alpha is dropped and grey repeated: the codecs are compared on colour pictures.
    """
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    # A fresh picture carries no ICC profile or EXIF that would count as bytes for some codecs.
    return Image.frombytes("RGB", upright.size, upright.tobytes())


@functools.lru_cache(maxsize=1)
def load_cached(path: Path) -> Image.Image:
    """`load`, keeping the last picture: a worker gets the settings of one picture in a row."""
    return load(path)


def fingerprint(image: Image.Image) -> str:
    """First 16 hex digits of the SHA-256 of size and samples."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def find(paths: Iterable[Path]) -> tuple[list[Source], list[str]]:
    """Sources in the order of names, and what was wrong, one line each.

    Pictures that cannot be read and names that occur twice are reported and left out; the rest
    is measured all the same.
    """
    sources: dict[str, Source] = {}
    problems: list[str] = []
    for path in _files(paths, problems):
        if path.name in sources:
            problems.append(f"{path}: another picture is named {path.name}; this one is left out")
            continue
        try:
            image = load(path)
        # Decoders of broken files raise far more than OSError: SyntaxError, ValueError, ...
        except Exception as error:
            problems.append(f"{path}: cannot be read: {error}")
            continue
        sources[path.name] = Source(path.name, path, fingerprint(image), *image.size)
    return sorted(sources.values(), key=lambda source: source.name), problems


def _files(paths: Iterable[Path], problems: list[str]) -> Iterable[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            problems.append(f"{path}: no pictures in this folder")
        yield from inside
