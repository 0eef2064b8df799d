"""Write the conformance sets of models: tests/golden/<model id>/.

    python tools/make_golden.py                  of every model that has a name
    python tools/make_golden.py small            of some of them

Small files of every kind, made from pictures that are drawn by code, and index.json with what a
decoder must get from each: SHA-256 of the file, checksums of the symbols per tile, SHA-256 of the
alpha plane, some decoded samples (each may differ by one level) and the PSNR against the source.
Files of earlier models stay where they are: what was written once must be readable for ever.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import synthetic  # noqa: E402 - the drawings that the tests use

from aecodec import choice, codec, container, rate, repeats, tuning, weights  # noqa: E402
from aecodec.errors import AecError  # noqa: E402

FOLDER = ROOT / "tests" / "golden"
MAX_TOTAL = 200_000  # bytes of all files of one model
SAMPLES = 24

TUNED = 40.0  # what a squared error counts for, so that tuning the filter pays on a small picture

# mode, width, height, quality, metadata, side of a tile or 0; a "tuned" one has a FILTER chunk, an
# "exact" one its samples, a "layered" one some of them
CASES = (
    ("RGB", 1, 1, 75, False, 0),
    ("L", 1, 1, 75, False, 0),
    ("RGB", 15, 16, 75, False, 0),
    ("RGB", 16, 16, 0, False, 0),
    ("RGB", 17, 15, 100, False, 0),
    ("L", 16, 17, 50, False, 0),
    ("LA", 15, 17, 75, True, 0),
    ("RGBA", 16, 16, 30, True, 0),
    ("RGB", 63, 64, 75, True, 0),
    ("RGB", 64, 64, 33.33, False, 0),
    ("RGB", 64, 65, 90, False, 0),
    ("L", 65, 63, 10, False, 0),
    ("L", 64, 64, 100, True, 0),
    ("LA", 63, 65, 60, False, 0),
    ("RGBA", 65, 64, 75, True, 0),
    ("RGB", 127, 129, 20, False, 0),
    ("RGB", 101, 103, 55.5, False, 0),
    ("RGB", 300, 2, 75, False, 0),
    ("L", 3, 257, 75, False, 0),
    ("RGB", 200, 129, 25, False, 128),
    ("LA", 129, 130, 40, True, 128),
    ("RGBA", 128, 128, 15, False, 128),
    ("orange", 129, 70, 60, False, 0),
    ("orange", 130, 131, 35, False, 128),
    ("tuned RGB", 96, 80, 70, False, 0),
    ("tuned orange", 140, 100, 15, False, 128),
    ("exact RGB", 33, 31, 100, False, 0),
    ("exact L", 65, 30, 100, False, 0),
    ("exact RGBA", 131, 15, 100, True, 128),
    ("layered RGB", 75, 60, 55, False, 0),
    ("layered LA", 140, 37, 30, True, 128),
    ("layered orange", 70, 131, 20, False, 128),
)


def encode(source: Any, quality: float, tile: int, model: str, how: str = "") -> bytes:
    """The file of a picture, with tiles of a given side where one is given.

    how: tuned, exact or layered, as no picture so small is by itself.
    """
    before = codec.TILE, codec.SINGLE_TILE_PIXELS, tuning.fitted, repeats.PROMISING
    found = repeats.covered, choice.Trial.sizes
    try:
        if tile:
            codec.TILE, codec.SINGLE_TILE_PIXELS = tile, 0
        if how == "exact":
            repeats.PROMISING = 0.0
            file = codec.Encoder(source, threads=1, model=model).exact
            assert file is not None
            return container.write(file)
        if how == "tuned":
            fitted = tuning.fitted
            tuning.fitted = lambda *given: fitted(*given[:-1], TUNED * given[-1])
        if how == "layered":
            repeats.covered = third
            choice.Trial.sizes = lambda *_: choice.Sizes(plain=1, layered=1)  # type: ignore[method-assign]
        options = {"threads": 1, "verify": True, "model": model, "exactly": how == "layered"}
        effort = 4 if how == "tuned" else None
        return codec.encode_picture(source, quality, effort=effort, **options)
    finally:
        codec.TILE, codec.SINGLE_TILE_PIXELS, tuning.fitted, repeats.PROMISING = before
        repeats.covered, choice.Trial.sizes = found


def third(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Blocks of a pattern, none of them beyond 128 pixels."""
    rows, columns = (np.arange(-(-side // repeats.BLOCK)) for side in pixels.shape[:2])
    taken: npt.NDArray[np.bool_] = (np.add.outer(rows, columns) % 3 == 0) & (columns < 16)
    return taken


def samples(pixels: npt.NDArray[np.uint8]) -> list[int]:
    """Samples spread over a picture of any size, the same ones every time."""
    flat = pixels.ravel()
    return [int(flat[(index * 7919 + index // 2) % flat.size]) for index in range(SAMPLES)]


def describe(case: tuple[Any, ...], data: bytes) -> dict[str, Any]:
    """What a decoder must find in a file, and how it was made."""
    mode, width, height, quality, metadata, tile = case
    source = synthetic.picture(mode.split()[-1], width, height, metadata=metadata)
    back = codec.decode_file(data, threads=1)
    alpha = None if back.alpha is None else hashlib.sha256(back.alpha.tobytes()).hexdigest()
    return {
        "mode": mode, "width": width, "height": height, "quality": quality,
        "metadata": metadata, "tile": tile, "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "symbols": [f"{part.checksum:04x}" for part in container.read(data).tiles if part],
        "alpha": alpha,
        "samples": samples(back.pixels),
        "psnr": min(99.0, round(rate.psnr(source, back), 3)),
    }  # fmt: skip


def main(models: Sequence[str] = ()) -> int:
    return max(write(weights.id_of(model)) for model in models or weights.names())


def write(model: str) -> int:
    """Write the files of the model of an id: the exit status."""
    folder, index, total = FOLDER / model, {}, 0
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        mode, width, height, quality, metadata, tile = case
        source = synthetic.picture(mode.split()[-1], width, height, metadata=metadata)
        data = encode(source, quality, tile, model, mode.split()[0])
        kind = mode.lower().replace(" ", "-")
        name = f"{kind}-{width}x{height}-q{quality:g}{'-tiles' if tile else ''}.aec"
        (folder / name).write_bytes(data)
        index[name], total = describe(case, data), total + len(data)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in index.items())
    (folder / "index.json").write_text(f'{{"model": "{model}", "files": {{\n{lines}\n}}}}\n')
    print(f"{folder.relative_to(ROOT)}: {len(index)} files, {total} bytes")
    if total > MAX_TOTAL:
        print(f"more than {MAX_TOTAL} bytes: lower some qualities", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AecError as error:
        sys.exit(str(error))
