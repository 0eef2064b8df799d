"""benchmarks/overhead.py: the ideal length of a file's symbols, and what the file has besides."""

from __future__ import annotations

from pathlib import Path

import synthetic
from click.testing import CliRunner
from scripts import load_script

from aecodec import codec, container
from aecodec.picture import Picture

ROOT = Path(__file__).resolve().parent.parent
overhead = load_script("benchmarks/overhead.py")


def test_ideal_bits_of_a_file() -> None:
    """Just below the payloads, for one tile and for the sum of several."""
    for mode, tile in (("RGB", 0), ("L", 0), ("RGBA", 128)):
        source = synthetic.picture(mode, 200, 129)
        data = codec.encode_picture(source, 30) if not tile else tiled(source, tile)
        parts = container.read(data).tiles
        payload = sum(len(part.payload) for part in parts if part)
        assert -len(parts) < payload - overhead.ideal_bits(data) / 8 < 2 * len(parts)


def test_the_tuned_filter_is_counted() -> None:
    data = codec.encode_picture(synthetic.picture("RGB", 320, 256), 95)
    assert container.read(data).filter is not None
    assert -1 < overhead.coded_bytes(data) - overhead.ideal_bits(data) / 8 < 4


def tiled(source: Picture, side: int) -> bytes:
    before = codec.TILE, codec.SINGLE_TILE_PIXELS
    try:
        codec.TILE, codec.SINGLE_TILE_PIXELS = side, 0
        return codec.encode_picture(source, 30)
    finally:
        codec.TILE, codec.SINGLE_TILE_PIXELS = before


def test_table() -> None:
    folder = str(ROOT / "tests" / "data")
    done = CliRunner().invoke(overhead.main, [folder, "--pictures", "1", "--qualities", "0,60"])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()[2:]]
    assert [row[0] for row in rows] == ["0", "60"]
    assert all(float(row[2]) <= 32 and float(row[4]) > 0 for row in rows)
    assert float(rows[1][4]) < float(rows[0][4])
