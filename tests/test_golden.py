"""Files of every model that was ever released stay readable, symbol for symbol.

`python tools/make_golden.py` writes the files of the models that new files are written with.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from scripts import load_script

from aecodec import codec, container, rate, weights
from aecodec.errors import AecError

GOLDEN = Path(__file__).resolve().parent / "golden"


def files() -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for index in sorted(GOLDEN.glob("*/index.json")):
        entries = json.loads(index.read_text())["files"]
        found += [(index.parent / name, entry) for name, entry in sorted(entries.items())]
    return found


CASES = [pytest.param(*case, id=f"{case[0].parent.name}/{case[0].stem}") for case in files()]


@pytest.mark.parametrize(("path", "expected"), CASES)
def test_decodes_as_written(path: Path, expected: dict[str, Any]) -> None:
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == expected["sha256"]
    if path.parent.name not in weights.available():
        pytest.skip(f"model {path.parent.name} is not installed")
    tiles = container.read(data).tiles
    assert [f"{tile.checksum:04x}" for tile in tiles if tile] == expected["symbols"]
    back = codec.decode_file(data)  # compares the symbols with their checksums
    assert (back.width, back.height) == (expected["width"], expected["height"])
    assert (back.pixels.ndim == 2) == expected["mode"].split()[-1].startswith("L")
    seen = load_script("tools/make_golden.py").samples(back.pixels)
    assert np.abs(np.subtract(seen, expected["samples"])).max() <= 1
    source = synthetic.picture(
        expected["mode"].split()[-1], back.width, back.height, metadata=expected["metadata"]
    )
    if back.pixels.size > 1000:  # one level more or less in a few pixels is no fault
        assert min(99.0, rate.psnr(source, back)) == pytest.approx(expected["psnr"], abs=0.3)
    assert (back.icc, back.exif, back.xmp) == (source.icc, source.exif, source.xmp)
    if back.alpha is not None:
        assert hashlib.sha256(back.alpha.tobytes()).hexdigest() == expected["alpha"]
        assert np.array_equal(back.alpha, source.alpha)


@pytest.mark.parametrize(("path", "expected"), CASES)
def test_second_reader_agrees(path: Path, expected: dict[str, Any]) -> None:
    checker, report = load_script("tools/check_aec.py"), []
    checker.check_chunks(checker.Bytes(path.read_bytes()), report)
    assert [line.split()[-1] for line in report if "TILE at" in line] == expected["symbols"]


@pytest.mark.parametrize(("path", "expected"), CASES)
def test_every_flip_and_every_cut_is_noticed(path: Path, expected: dict[str, Any]) -> None:
    """By the container, before a model is opened: so none can take long or much memory."""
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises(AecError):
            container.read(bytes(changed))
        changed[at] = data[at] ^ 0xFF
        with pytest.raises(AecError):
            container.read(bytes(changed))
        with pytest.raises(AecError):
            container.read(data[:at])


def test_every_named_model_has_a_set() -> None:
    assert {index.parent.name for index in GOLDEN.glob("*/index.json")} >= set(
        weights.names().values()
    )


def test_set_is_small() -> None:
    for folder in GOLDEN.glob("*/"):
        assert sum(path.stat().st_size for path in folder.glob("*.aec")) <= 200_000


def test_generator_gives_the_same_files_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, made = load_script("tools/make_golden.py"), []
    monkeypatch.setattr(tool, "CASES", tool.CASES[4:8])
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    for name in ("one", "two"):
        monkeypatch.setattr(tool, "FOLDER", tmp_path / name)
        assert tool.main(["default"]) == 0
        (folder,) = (tmp_path / name).iterdir()
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 5
