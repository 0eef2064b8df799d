"""Best effort: what is left of a damaged file is shown, what is lost is grey and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from aecodec import cli, codec, container
from aecodec.container import Chunk
from aecodec.errors import AecError, ChecksumError, SymbolError
from aecodec.picture import Picture

WIDTH, HEIGHT = 300, 257  # 3 by 3 tiles


def encode(mode: str, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[Chunk]]:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 256)
    source = synthetic.picture(mode, WIDTH, HEIGHT, metadata=True)
    data = codec.encode_picture(source, 60)
    return data, container.walk(data)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def far_from(boxes: tuple[codec.Box, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Where the picture must be as if nothing had happened."""
    mask = np.ones((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in boxes:
        reach = codec.open_model().halo
        mask[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = False
    return mask


def is_grey(picture: Picture, box: codec.Box) -> bool:
    left, top, right, bottom = box
    return bool((picture.pixels[top:bottom, left:right] == 128).all())


@pytest.mark.parametrize("mode", ["LA", "RGB"])
def test_one_damaged_tile(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, chunks = encode(mode, monkeypatch)
    whole = codec.decode_file(data)
    last = chunks[-1]
    cut = flip(data, last.start + 6)
    with pytest.raises(ChecksumError):
        codec.decode_file(cut)
    back, damage = codec.decode_damaged(cut, threads=2)
    assert damage.tiles == ((256, 256, 300, 257),)
    assert is_grey(back, damage.tiles[0])
    assert damage.lines() == ["the tile at 256,256 of 44x1 pixels is damaged and shown grey"]
    far = far_from(damage.tiles)
    assert far.any()
    assert np.abs(back.pixels[far].astype(int) - whole.pixels[far]).max() <= 1
    assert (back.icc, back.exif, back.xmp) == (whole.icc, whole.exif, whole.xmp)
    if back.alpha is not None and whole.alpha is not None:
        assert (back.alpha[256:, 256:] == 255).all()
        assert np.array_equal(back.alpha[:256], whole.alpha[:256])


def test_symbols_that_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right CRCs around payloads that decode to something else."""
    data, _ = encode("L", monkeypatch)
    file = container.read(data)
    tiles = [tile for tile in file.tiles if tile]
    for index in (0, 4):
        tiles[index] = container.Tile(tiles[index].checksum ^ 1, tiles[index].payload)
    wrong = container.write(container.AecFile(file.header, tuple(tiles)))
    with pytest.raises(SymbolError):
        codec.decode_file(wrong)
    back, damage = codec.decode_damaged(wrong)
    assert damage.tiles == ((0, 0, 128, 128), (128, 128, 256, 256))
    assert all(is_grey(back, box) for box in damage.tiles)


def test_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    data, chunks = encode("RGB", monkeypatch)
    back, damage = codec.decode_damaged(data[: chunks[-3].start])
    assert len(damage.tiles) == 3
    back, damage = codec.decode_damaged(data[:30])
    assert len(damage.tiles) == 9
    assert (back.pixels == 128).all()
    with pytest.raises(AecError):
        codec.decode_damaged(data[:12])


def test_other_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, chunks = encode("LA", monkeypatch)
    for chunk in chunks[:4]:
        back, damage = codec.decode_damaged(flip(data, chunk.start))
        assert (damage.tiles, damage.others, bool(damage)) == ((), (chunk.name,), True)
        assert damage.lines() == [f"the {chunk.name} chunk is damaged and left out"]
        assert (back.icc is None) == (chunk.name == "ICC")
        assert back.alpha is not None
        assert (back.alpha == 255).all() == (chunk.name == "ALPHA")


def test_whole_files_and_stray_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = encode("RGB", monkeypatch)
    whole = codec.decode_file(data)
    back, damage = codec.decode_damaged(data)
    assert not damage
    assert np.abs(back.pixels.astype(int) - whole.pixels).max() <= 1
    back, damage = codec.decode_damaged(data + b"more")
    assert damage
    assert damage.lines() == ["bytes that belong to no chunk are left out"]


def test_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, chunks = encode("L", monkeypatch)
    source, target = tmp_path / "in.aec", tmp_path / "out.png"
    source.write_bytes(flip(data, chunks[-1].start + 5))
    assert cli.run(["decompress", str(source), str(target)]) == 1
    assert not target.exists()
    assert cli.run(["decompress", "--best-effort", str(source), str(target)]) == 3
    assert "tile at 256,256" in capfd.readouterr().err
    assert target.exists()
