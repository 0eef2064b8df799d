"""Whatever is not a whole .aec file is refused with one line, and no output appears."""

from __future__ import annotations

import io
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import synthetic
from PIL import Image

import aecodec
from aecodec import cli, codec, container, decoding
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import AecError, FormatError, LimitError, ModelError, SymbolError
from aecodec.varint import pack_varint


@pytest.fixture(scope="module")
def good() -> bytes:
    return codec.encode_picture(synthetic.picture("RGBA", 90, 70, metadata=True), 75)


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(synthetic.plane(20, 20)).save(out, "PNG")
    return out.getvalue()


def broken(good: bytes) -> Iterator[bytes]:
    """Everything that can befall a file: emptied, exchanged, cut, one byte changed."""
    places = random.Random(1)
    yield b""
    yield png()
    yield from (good[:size] for size in range(1, 64))
    yield from (good[: places.randrange(64, len(good))] for _ in range(50))
    for _ in range(200):
        at = places.randrange(len(good))
        yield good[:at] + bytes([good[at] ^ places.randrange(1, 256)]) + good[at + 1 :]
    yield good + b"\0"
    yield good[:30] + good[31:]


def test_memory(good: bytes) -> None:
    count = 0
    for data in broken(good):
        with pytest.raises(AecError) as caught:
            aecodec.decode(data)
        assert "\n" not in str(caught.value)
        count += 1
    assert count == 317


def test_files(good: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "in.aec", tmp_path / "out.png"
    for data in broken(good):
        source.write_bytes(data)
        with pytest.raises(AecError, match=r"in\.aec"):
            aecodec.decompress(source, target)
        assert [path.name for path in tmp_path.iterdir()] == ["in.aec"]


def test_command(good: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.aec", tmp_path / "out.png"
    for data in broken(good):
        source.write_bytes(data)
        assert cli.run(["decompress", str(source), str(target)]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert "in.aec" in err
        assert [path.name for path in tmp_path.iterdir()] == ["in.aec"]


def test_pictures_that_are_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "cut.png").write_bytes(png()[:60])
    for name in ("text.png", "cut.png", "none.png"):
        with pytest.raises(AecError, match=name):
            aecodec.compress(tmp_path / name, tmp_path / "out.aec")
        assert cli.run(["compress", str(tmp_path / name), str(tmp_path / "out.aec")]) == 1
        assert len(capfd.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.png", "text.png"]


# Right checksums around wrong contents.


def file_of(header: Header, payload: bytes, *, alpha: bytes | None = None) -> bytes:
    tiles = tuple(Tile(index, payload) for index in range(header.tile_count))
    return container.write(AecFile(header, tiles, alpha))


def header(width: int, height: int, tile: int = 0, *, alpha: bool = False) -> Header:
    model_id = codec.open_model().weights.id
    return Header(model_id, Colour.RGB, alpha, width, height, 7500, tile)


def test_payloads_of_random_bytes() -> None:
    places = random.Random(2)
    for size in (1, 2, 3, 4, 5, 8, 20, 100, 1000, 10000):
        for _ in range(3):
            with pytest.raises((SymbolError, FormatError)):
                codec.decode_file(file_of(header(40, 33), places.randbytes(size)))


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_payloads_of_one_byte_value(fill: bytes) -> None:
    for size in (1, 4, 64, 4096):
        with pytest.raises((SymbolError, FormatError)):
            codec.decode_file(file_of(header(64, 64), fill * size))


def test_symbols_of_another_tile_are_refused() -> None:
    data = codec.encode_picture(synthetic.picture("RGB", 40, 40), 75)
    file = container.read(data)
    (tile,) = file.tiles
    assert tile is not None
    swapped = AecFile(file.header, (Tile(tile.checksum ^ 1, tile.payload),))
    with pytest.raises(SymbolError, match="out of step"):
        codec.decode_file(container.write(swapped))


def claimed(width: int, height: int, tile_code: int = 0) -> bytes:
    """A file of 60 bytes that claims any size."""
    model_id = codec.open_model().weights.id
    kind = bytes([Colour.RGB | tile_code << 4])
    numbers = b"".join(pack_varint(number) for number in (width - 1, height - 1, 7500))
    head = container.MAGIC + b"\1" + model_id + kind + numbers
    head += (zlib.crc32(head) % 2**16).to_bytes(2, "little")
    data = head + b"\x7c" + bytes(60 - len(head) - 1 - 4)
    return data + zlib.crc32(data).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("width", "height", "tile_code"),
    [(65535, 65535, 0), (65535, 65535, 7), (16384, 16384, 0), (16384, 16384, 1),
     (4096, 1025, 0), (2**14, 2**14, 5)],
)  # fmt: skip
def test_small_files_that_claim_much(width: int, height: int, tile_code: int) -> None:
    data = claimed(width, height, tile_code)
    assert len(data) == 60
    tracemalloc.start()
    try:
        with pytest.raises((LimitError, FormatError)):
            codec.decode_file(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_model_is_asked_for_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many tiles, and alpha, for a model that nobody has."""
    monkeypatch.setattr(decoding.alpha, "unpack_alpha", None)
    many = Header(b"\x0b\xad\xc0\xde", Colour.GREY, True, 16384, 16384, 5000, 2048)
    with pytest.raises(ModelError, match="0badc0de"):
        codec.decode_file(file_of(many, b"x", alpha=b"\0\xff"))


def test_alpha_that_does_not_fit() -> None:
    bomb = b"\1" + zlib.compress(bytes(10**7))
    with pytest.raises(FormatError, match="alpha plane"):
        codec.decode_file(file_of(header(40, 33, alpha=True), b"abc", alpha=bomb))
    with pytest.raises(FormatError, match="alpha plane"):
        codec.decode_file(file_of(header(40, 33, alpha=True), b"abc", alpha=b"\7"))


def test_metadata_is_never_inflated() -> None:
    """A profile that would inflate to a terabyte is bytes like any others."""
    bomb = zlib.compress(bytes(10**6))
    source = synthetic.picture("L", 8, 8)
    data = codec.encode_picture(type(source)(source.pixels, None, bomb, b"II*\0" + bomb, bomb))
    assert codec.decode_file(data).icc == bomb


def test_not_a_picture_in_memory() -> None:
    for array in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 5), np.uint8), np.zeros(4, "u1")):
        with pytest.raises(AecError):
            aecodec.encode(array)
