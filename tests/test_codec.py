"""The pipeline: every kind of picture there and back, always the same bytes, honest sizes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import synthetic

from aecodec import codec, coder, container, decoding, rate, tuning, weights, window
from aecodec.container import Colour, Header, Tile
from aecodec.entropy import Groups, SymbolEncoder, TableSet
from aecodec.errors import FormatError, LimitError, ModelError, PictureError, SymbolError
from aecodec.picture import Picture, from_array
from aecodec.tile import Coded

MODES = ("L", "LA", "RGB", "RGBA")
SIZES = (
    (1, 1), (15, 16), (16, 17), (17, 15), (63, 64), (64, 63), (65, 1),
    (64, 64), (65, 66), (127, 128), (129, 97), (101, 103), (400, 3), (2, 350),
)  # fmt: skip
QUALITIES = (0.0, 33.33, 75.0, 100.0)


def check(source: Picture, back: Picture, *, metadata: bool = True) -> None:
    """The same kind of picture, roughly the same pixels, exactly the same alpha and blocks."""
    assert back.pixels.shape == source.pixels.shape
    assert back.pixels.dtype == np.uint8
    error = np.abs(back.pixels.astype(int) - source.pixels)
    assert error.mean() < 40  # no statement on quality: pixels are where they were
    assert (back.alpha is None) == (source.alpha is None)
    if source.alpha is not None and back.alpha is not None:
        assert np.array_equal(back.alpha, source.alpha)
    if metadata:
        assert (back.icc, back.exif, back.xmp) == (source.icc, source.exif, source.xmp)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_modes_and_sizes(mode: str, width: int, height: int) -> None:
    case = MODES.index(mode) + SIZES.index((width, height))
    source = synthetic.picture(mode, width, height, metadata=case % 2 == 0)
    data = codec.encode_picture(source, QUALITIES[case % 4])
    check(source, codec.decode_file(data))
    assert container.read_header(data).quality == round(QUALITIES[case % 4] * 100)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("metadata", ["all", "icc", "none"])
def test_modes_qualities_and_metadata(mode: str, quality: float, metadata: str) -> None:
    source = synthetic.picture(mode, 37, 29, metadata=True)
    back = codec.decode_file(codec.encode_picture(source, quality, metadata=metadata))
    check(source, back, metadata=False)
    kept = {"all": (synthetic.ICC, synthetic.EXIF, synthetic.XMP),
            "icc": (synthetic.ICC, None, None), "none": (None, None, None)}  # fmt: skip
    assert (back.icc, back.exif, back.xmp) == kept[metadata]


@pytest.mark.parametrize("mode", MODES)
def test_every_named_model(mode: str) -> None:
    source = synthetic.picture(mode, 129, 65, metadata=True)
    for name, model_id in weights.names().items():
        data = codec.encode_picture(source, 60, model=name, verify=True)
        assert container.read_header(data).model_id.hex() == model_id
        check(source, codec.decode_file(data))
    with pytest.raises(ModelError, match="no model 'large'"):
        codec.encode_picture(source, 60, model="large")


def test_source_is_left_as_it_was() -> None:
    source = synthetic.picture("RGBA", 70, 50, metadata=True)
    before = source.pixels.copy()
    codec.encode_picture(source)
    assert np.array_equal(source.pixels, before)
    source.pixels.flags.writeable = False
    view = dataclasses.replace(source, pixels=source.pixels[::-1, ::-1])
    check(view, codec.decode_file(codec.encode_picture(view)))


@pytest.mark.parametrize("level", [0, 255])
def test_flat_pictures(level: int) -> None:
    source = from_array(np.full((90, 70, 3), level, np.uint8))
    check(source, codec.decode_file(codec.encode_picture(source)))


def test_quality_is_continuous() -> None:
    source = synthetic.picture("RGB", 128, 128)
    sizes = [len(codec.encode_picture(source, quality)) for quality in (5, 30, 60, 95)]
    assert sizes == sorted(set(sizes))
    one, other = (codec.encode_picture(source, quality) for quality in (60, 60.01))
    assert one != other


@pytest.mark.parametrize("quality", [-0.01, 100.01, float("nan"), float("inf"), -1e300])
def test_quality_out_of_range(quality: float) -> None:
    with pytest.raises(FormatError, match="is not between 0 and 100"):
        codec.encode_picture(synthetic.picture("L", 2, 2), quality)


def test_unknown_choice_of_metadata() -> None:
    with pytest.raises(FormatError, match="all, icc or none, not 'some'"):
        codec.encode_picture(synthetic.picture("L", 2, 2), metadata="some")


def test_too_large() -> None:
    wide = np.broadcast_to(np.uint8(0), (1, 65536))
    with pytest.raises(LimitError, match="65536x1"):
        codec.encode_picture(Picture(wide))
    data = codec.encode_picture(synthetic.picture("L", 20, 10))
    assert codec.decode_file(data, max_pixels=200).width == 20
    with pytest.raises(LimitError, match="above the limit of 199 pixels"):
        codec.decode_file(data, max_pixels=199)
    with pytest.raises((LimitError, PictureError)):
        from_array(np.zeros((0, 5), np.uint8))


def test_missing_model_is_named() -> None:
    head = Header(bytes.fromhex("0badc0de"), Colour.RGB, False, 8, 8, 5000)
    data = container.write(container.AecFile(head, (Tile(1, b"abc"),)))
    with pytest.raises(ModelError, match="0badc0de"):
        codec.decode_file(data)
    assert "0badc0de" not in weights.available()


# The same bytes, always.


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("mode", "width", "height"), [("RGB", 200, 150), ("LA", 65, 70)])
def test_bytes_do_not_depend_on_threads(mode: str, width: int, height: int) -> None:
    source = synthetic.picture(mode, width, height)
    first = codec.encode_picture(source, 80, threads=1)
    assert all(codec.encode_picture(source, 80, threads=n) == first for n in (1, 2, 4))
    pictures = [codec.decode_file(first, threads=n) for n in (1, 2, 4)]
    for other in pictures[1:]:
        gap = np.abs(other.pixels.astype(int) - pictures[0].pixels)
        assert gap.max() <= 1


def test_bytes_do_not_depend_on_the_process() -> None:
    here = digest(codec.encode_picture(synthetic.picture("RGB", 100, 90), 66))
    script = (
        "import hashlib, synthetic; from aecodec import codec;"
        "data = codec.encode_picture(synthetic.picture('RGB', 100, 90), 66);"
        "print(hashlib.sha256(data).hexdigest())"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(codec.__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7", "AECODEC_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


# Sizes.


@pytest.fixture
def ideal_bits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Code lengths of everything that is put into a payload."""
    seen: list[float] = []
    put, put_bits = SymbolEncoder.put_grouped, SymbolEncoder.put_bits

    def watch(self: SymbolEncoder, values: npt.NDArray[np.int32], groups: Groups,
              tables: TableSet) -> None:  # fmt: skip
        seen.append(tables.bits(values, np.repeat(np.arange(len(groups.counts)), groups.counts)))
        put(self, values, groups, tables)

    def watch_bits(self: SymbolEncoder, bits: npt.NDArray[np.bool_]) -> None:
        seen.append(len(bits))
        put_bits(self, bits)

    monkeypatch.setattr(SymbolEncoder, "put_grouped", watch)
    monkeypatch.setattr(SymbolEncoder, "put_bits", watch_bits)
    return seen


@pytest.mark.parametrize("quality", [10, 50, 75, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_size_is_what_the_model_says(mode: str, quality: float, ideal_bits: list[float]) -> None:
    data = codec.encode_picture(synthetic.picture(mode, 320, 256), quality)
    file = container.read(data)
    payload = sum(len(tile.payload) for tile in file.tiles if tile)
    assert len(container.write(dataclasses.replace(file, filter=None))) - payload <= 32
    # How the filter is tuned, at high qualities, is coded with the same tables.
    change = file.filter or b""
    assert len(data) - payload - len(change) <= 32 + tuning.FRAME
    # The coder ends on the first byte that will do, and its rounding costs next to nothing.
    coded = payload + max(0, len(change) - 1 - tuning.CLASSES)
    assert -1 < coded - sum(ideal_bits) / 8 < 0.002 * sum(ideal_bits) / 8 + 2


@pytest.mark.parametrize(("width", "height"), [(1, 1), (65535, 1), (768, 512)])
def test_overhead(width: int, height: int) -> None:
    head = Header(b"abcd", Colour.RGB, False, width, height, 10000)
    payload = bytes(2**21 - 5)
    data = container.write(container.AecFile(head, (Tile(2**16 - 1, payload),)))
    assert len(data) - len(payload) <= 26


# Tiles.


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 256)
    return


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("mode", ["LA", "RGB"])
@pytest.mark.parametrize(("width", "height"), [(129, 128), (150, 140), (1, 300), (300, 40)])
def test_tiles_round_trip(mode: str, width: int, height: int) -> None:
    source = synthetic.picture(mode, width, height, metadata=True)
    data = codec.encode_picture(source, 70, threads=2)
    assert container.read_header(data).tile == 128
    assert codec.encode_picture(source, 70, threads=1) == data
    check(source, codec.decode_file(data, threads=2))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_no_seams_in_the_decoder(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the same latents, tiles join to the picture that one tile would give."""
    model = codec.open_model()
    random = np.random.default_rng(5)
    grown = (0, 0, 320, 192)
    source = synthetic.picture(mode, 300, 140).pixels
    u = model.networks.analysis(window.cut(source, grown), 7500)
    y_hat = u * model.networks.inverse_gain(7500) * random.normal(8, 4, u.shape)
    y_hat = y_hat.astype(np.float32)
    one = Header(b"abcd", Colour.GREY if mode == "L" else Colour.RGB, False, 300, 140, 7500)
    many = dataclasses.replace(one, tile=128)

    def cut(_: codec.Model, tile: Tile, size: tuple[int, int], *rest: object) -> codec.Float:
        left, top = list(header.boxes)[tile.checksum][:2]
        rows = slice(top // 16, (top + size[0]) // 16)
        return y_hat[:, rows, left // 16 : (left + size[1]) // 16]

    monkeypatch.setattr(decoding, "decode_tile", cut)
    results = []
    for header in (one, many):
        tiles = tuple(Tile(index, b"x") for index in range(header.tile_count))
        file = container.AecFile(header, tiles)
        results.append(decoding.paint_tiles(model, file, 2).astype(int))
    assert many.tile_count == 6
    assert results[0].std() > 5
    assert np.abs(results[0] - results[1]).max() <= 1


@pytest.mark.usefixtures("small_tiles")
def test_no_seams_in_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents of a tile are those that it has in the whole picture."""
    model = codec.open_model()
    source = synthetic.picture("RGB", 300, 140)
    whole = model.networks.analysis(window.cut(source.pixels, (0, 0, 320, 192)), 7500)
    parts: list[codec.Float] = []

    choose = coder.choose

    def keep(model: coder.Model, seen: window.Window, *rest: Any) -> Coded:
        parts.append(seen.inner)
        return choose(model, seen, *rest)

    monkeypatch.setattr(coder, "choose", keep)
    codec.encode_picture(source, 75, threads=1, turns=False)
    header = Header(b"abcd", Colour.RGB, False, 300, 140, 7500, 128)
    for (left, top, *_), u in zip(header.boxes, parts, strict=True):
        here = whole[:, top // 16 : top // 16 + u.shape[1], left // 16 : left // 16 + u.shape[2]]
        assert np.abs(u - here).max() < 1e-4 * np.abs(whole).max()


# Verification.


@pytest.mark.parametrize("mode", MODES)
def test_verification_changes_nothing(mode: str) -> None:
    source = synthetic.picture(mode, 70, 66, metadata=True)
    assert codec.encode_picture(source, verify=True) == codec.encode_picture(source)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_verification_measures_what_a_decoder_shows(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 256)
    source = synthetic.picture(mode, 150, 300)
    encoder = codec.Encoder(source)
    data = encoder.encode(40)
    assert encoder.verify(data) == rate.psnr(source, codec.decode_file(data))


def test_verification_finds_wrong_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = SymbolEncoder.finish
    monkeypatch.setattr(SymbolEncoder, "finish", lambda self: b"\x55" + finish(self)[1:])
    source = synthetic.picture("RGB", 64, 64)
    codec.encode_picture(source)
    with pytest.raises((SymbolError, FormatError)):
        codec.encode_picture(source, verify=True)


@pytest.mark.parametrize("kept_pixels", [0, 2**24])
def test_verification_finds_wrong_latents_in_any_file_of_an_encoder(
    monkeypatch: pytest.MonkeyPatch, kept_pixels: int
) -> None:
    monkeypatch.setattr(codec, "KEPT_PIXELS", kept_pixels)  # larger pictures keep no latents
    encoder = codec.Encoder(synthetic.picture("RGB", 64, 64))
    files = [encoder.encode(quality) for quality in (50, 60)]
    for data in files:
        encoder.verify(data)
    decode = codec.decode_tile
    monkeypatch.setattr(codec, "decode_tile", lambda *given: decode(*given) + 1)
    for data in files:
        with pytest.raises(SymbolError, match="does not decode to what was coded"):
            encoder.verify(data)
    stranger = codec.encode_picture(synthetic.picture("RGB", 64, 65))
    with pytest.raises(SymbolError, match="not the bytes that were coded"):
        encoder.verify(stranger)


def test_verification_finds_wrong_alpha_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    source = synthetic.picture("LA", 20, 20, metadata=True)
    pack, write = codec.alpha.pack_alpha, container.write
    monkeypatch.setattr(codec.alpha, "pack_alpha", lambda plane: pack(plane ^ 1))
    with pytest.raises(SymbolError, match="alpha plane does not read back"):
        codec.encode_picture(source, verify=True)
    monkeypatch.setattr(codec.alpha, "pack_alpha", pack)
    drop = {"xmp": None}
    monkeypatch.setattr(container, "write", lambda f: write(dataclasses.replace(f, **drop)))
    with pytest.raises(SymbolError, match="metadata does not read back"):
        codec.encode_picture(source, verify=True)
