"""A decoder that is out of step says so and writes nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic

from aecodec import codec, container, weights
from aecodec.prior import QUALITY_STEP
from aecodec.tile import Checksum

ROW = 38  # of the quality tables; the file has just this quality


def flip(folder: Path, tensor: str, row: int, bit: int) -> Path:
    """Flip one bit of a table in a copied model, and make it consistent with itself again.

    The first channel of the row is hit. Returns the folder under its new name.
    """
    store = folder / weights.STORE
    data = bytearray(store.read_bytes())
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[tensor]
    start, stop = entry["data_offsets"]
    at = 8 + length + start + row * (stop - start) // entry["shape"][0]
    data[at + bit // 8] ^= 1 << bit % 8
    store.write_bytes(data)
    manifest = json.loads((folder / weights.MANIFEST).read_text())
    digest = hashlib.sha256(data).hexdigest()
    manifest["sha256"][weights.STORE] = digest
    (folder / weights.MANIFEST).write_text(json.dumps(manifest))
    return folder.rename(folder.with_name(digest[:8]))


@pytest.mark.parametrize(("tensor", "bit"), [("tables.shift", 7), ("tables.gain", 17)])
def test_one_bit_of_a_table(tensor: str, bit: int, tmp_path: Path) -> None:
    data = codec.encode_picture(synthetic.picture("RGB", 128, 128), ROW * QUALITY_STEP / 100)
    source = weights.available()[weights.id_of()]
    copied = shutil.copytree(source, tmp_path / "models" / source.name)
    copied = flip(copied, tensor, ROW, bit)
    file = container.read(data)
    header = dataclasses.replace(file.header, model_id=bytes.fromhex(copied.name))
    path, target = tmp_path / "in.aec", tmp_path / "out.png"
    path.write_bytes(container.write(dataclasses.replace(file, header=header)))
    done = subprocess.run(
        [sys.executable, "-m", "aecodec", "decompress", str(path), str(target)],
        env={**os.environ, "AECODEC_WEIGHTS": str(copied.parent)},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "out of step" in done.stderr or "could have written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.aec", "models"]


def test_the_checksum_covers_every_symbol() -> None:
    """Signs, places and values all count."""

    def value(*symbols: int) -> int:
        checksum = Checksum()
        checksum.add(np.array(symbols, np.int32))
        return checksum.value

    assert value(1, 2, -300) == 0x658D  # of 0x6fc6658d, that of 01 00 02 00 d4 fe
    assert len({value(1, 2, -300), value(2, 1, -300), value(1, 2, 300), value(0, 1, 2, -300)}) == 4
