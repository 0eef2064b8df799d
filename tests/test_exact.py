"""Pictures that repeat themselves are kept exactly where that takes no more bytes."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from PIL import Image
from scripts import load_script

import aecodec
from aecodec import cli, codec, container, decoding, exact, pillow_plugin, rate, search, vp8l
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import FormatError, SymbolError, UnsupportedError
from aecodec.picture import Picture

Pixels = np.ndarray


def coloured(width: int, height: int) -> Pixels:
    """(height, width, 3): the page with a bar of another colour."""
    pixels = np.repeat(synthetic.text(width, height)[..., None], 3, 2)
    pixels[: height // 4] = (30, 60, 160)
    return pixels


PAGE = Picture(coloured(200, 120))
# On a ground that repeats itself less.
NOISY = Picture(PAGE.pixels ^ np.random.default_rng(3).integers(0, 2, (120, 200, 1), np.uint8))


def test_a_page_comes_back_as_it_was_in_fewer_bytes() -> None:
    data = aecodec.encode(PAGE.pixels)
    assert len(data) < len(codec.encode_picture(PAGE, exactly=False)) / 2
    found = aecodec.info(data)
    assert (found.exact, found.quality, found.model, found.mode) == (True, 100, "", "RGB")
    assert_array_equal(np.asarray(aecodec.decode(data)), PAGE.pixels)


def test_quality_effort_model_and_threads_make_no_difference() -> None:
    files = {
        codec.encode_picture(PAGE, quality, effort=effort, threads=threads, model=model)
        for quality, effort, threads, model in (
            (60, 1, 1, ""),
            (75, 3, 2, "small"),
            (100, 2, 3, ""),
        )
    }
    assert len(files) == 1


def test_the_smaller_file_wins() -> None:
    """At the lowest quality that is the lossy one; no file is larger than the exact one."""
    encoder = codec.Encoder(NOISY)
    assert encoder.exact is not None
    same = container.write(encoder.exact)
    files = [encoder.encode(quality) for quality in (0, 20, 40, 60, 80)]
    assert not container.read_header(files[0]).exact
    assert files[-1] == same
    assert [len(data) for data in files] == sorted(len(data) for data in files)


@pytest.mark.parametrize("shape", [(256, 256, 3), (9, 200), (8, 8, 3)])
def test_one_colour_is_exact_at_every_quality(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 255, np.uint8)
    files = {codec.encode_picture(Picture(pixels), quality) for quality in (0, 4, 30, 100)}
    assert len(files) == 1
    assert_array_equal(codec.decode_file(files.pop()).pixels, pixels)
    pixels[3, 5] = 0  # of two colours the smaller file wins
    small, exact = (len(codec.encode_picture(Picture(pixels), quality)) for quality in (0, 100))
    assert small <= exact


def test_no_search_where_the_exact_file_is_far_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.Cost, "corrected", None)  # every pass needs it
    encoder = codec.Encoder(PAGE, effort=8)
    at_once = encoder.encode(50)
    assert encoder.verify(at_once) == math.inf
    assert len(at_once) <= len(codec.encode_picture(PAGE, 50))  # it is packed with more effort too


def test_photographs_are_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "pack", None)
    source = synthetic.picture("RGB", 200, 120)
    assert not aecodec.info(codec.encode_picture(source)).exact


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("tile", [0, 128])
def test_every_mode_with_metadata_and_tiles(
    mode: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tile:
        monkeypatch.setattr(codec, "TILE", tile)
        monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    pixels = synthetic.text(200, 140) if mode.startswith("L") else coloured(200, 140)
    other = synthetic.picture(mode, 200, 140, metadata=True)
    source = dataclasses.replace(other, pixels=pixels)
    encoder = codec.Encoder(source, threads=2)
    data = encoder.encode(90)
    assert encoder.verify(data) == math.inf
    assert_array_equal(encoder.decoded().pixels, pixels)
    found = aecodec.info(data)
    assert (found.exact, found.mode, found.tiles) == (True, mode, 4 if tile else 1)
    load_script("tools/check_aec.py").check_chunks(
        load_script("tools/check_aec.py").Bytes(data), []
    )
    back = codec.decode_file(data, threads=2)
    assert_array_equal(back.pixels, pixels)
    assert (back.icc, back.exif, back.xmp) == (other.icc, other.exif, other.xmp)
    if other.alpha is None:
        assert back.alpha is None
    else:
        assert_array_equal(back.alpha, other.alpha)


def test_no_model_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.encode_picture(PAGE)
    monkeypatch.setattr(decoding, "open_model", None)
    assert_array_equal(codec.decode_file(data).pixels, PAGE.pixels)
    pillow_plugin.register()
    image = Image.open(io.BytesIO(data))
    assert_array_equal(np.asarray(image), PAGE.pixels)
    assert image.info["quality"] == 100
    assert image.info["model"] == ""


def test_targets() -> None:
    """Exactly where the size allows it, or where PSNR would cost more."""
    size = len(codec.encode_picture(NOISY))
    assert aecodec.info(aecodec.encode(NOISY.pixels, size=size)).exact
    assert not aecodec.info(aecodec.encode(NOISY.pixels, size=size - 1)).exact
    assert aecodec.info(aecodec.encode(NOISY.pixels, psnr=48)).exact
    low = aecodec.encode(NOISY.pixels, psnr=15)
    assert not aecodec.info(low).exact
    assert len(low) < size


def test_a_search_for_psnr_ends_at_an_exact_file() -> None:
    """Without going on to where the one that is not ends, and never with the worse one."""
    asked: list[float] = []

    def encode(quality: float) -> bytes:
        asked.append(quality)
        return bytes(1000 if quality >= 37.37 else round(900 + 2 * quality))

    def measure(data: bytes) -> float:
        return math.inf if len(data) == 1000 else 20 + (len(data) - 900) / 10

    hit = rate.reach(rate.Target("psnr", 40), 1000, encode, measure)
    assert (hit.psnr, len(hit.data)) == (math.inf, 1000)
    assert len(asked) <= rate.MAX_ENCODINGS


def test_latents_of_an_exact_file() -> None:
    data = codec.encode_picture(PAGE)
    assert_array_equal(aecodec.read_latents(data), aecodec.latents(PAGE.pixels))


def test_damaged_tiles_are_grey_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    source = Picture(coloured(200, 140))
    data = bytearray(codec.encode_picture(source))
    chunks = container.walk(bytes(data))
    data[chunks[1].start + 30] ^= 1
    with pytest.raises(FormatError, match="damaged"):
        codec.decode_file(bytes(data))
    back, damage = codec.decode_damaged(bytes(data))
    assert damage.tiles == ((128, 0, 200, 128),)
    assert np.all(back.pixels[:128, 128:] == 128)
    assert_array_equal(back.pixels[:, :128], source.pixels[:, :128])


def file_of(payload: bytes, checksum: int = 0, width: int = 200, height: int = 120) -> AecFile:
    header = Header(bytes(4), Colour.RGB, False, width, height, 10000, exact=True)
    return AecFile(header, (Tile(checksum, payload),))


def test_streams_that_are_not_of_the_tile() -> None:
    tile = exact.pack(PAGE.pixels)
    good = file_of(tile.payload, tile.checksum)
    assert_array_equal(codec.decode_file(container.write(good)).pixels, PAGE.pixels)
    with pytest.raises(SymbolError, match="not those that were coded"):
        codec.decode_file(container.write(file_of(tile.payload, tile.checksum ^ 1)))
    alpha = bytes([*tile.payload[:4], tile.payload[4] | 0x10, *tile.payload[5:]])
    for wrong in (
        file_of(tile.payload, tile.checksum, 120, 200),
        file_of(tile.payload[1:], tile.checksum),
        file_of(alpha, tile.checksum),
        file_of(tile.payload[:4], tile.checksum),
    ):
        with pytest.raises(FormatError, match="VP8L"):
            codec.decode_file(container.write(wrong))


def test_streams_of_noise_are_refused() -> None:
    tile, places = exact.pack(PAGE.pixels), np.random.default_rng(5)
    for size in (5, 6, 40, 400):
        payload = tile.payload[:5] + places.bytes(size)
        with pytest.raises((FormatError, SymbolError)):
            codec.decode_file(container.write(file_of(payload)))
    for cut in range(5, len(tile.payload), 97):
        with pytest.raises((FormatError, SymbolError)):
            codec.decode_file(container.write(file_of(tile.payload[:cut], tile.checksum)))


@pytest.mark.parametrize(
    "change",
    [
        {"model_id": b"\0\0\0\1"},
        {"quality": 7500},
        {"axes": (1, 2, 3, 4, 5, 6)},
    ],
)
def test_heads_that_contradict_themselves(change: dict[str, object]) -> None:
    header = Header(bytes(4), Colour.RGB, False, 20, 12, 10000, exact=True)
    with pytest.raises(FormatError, match="exact"):
        dataclasses.replace(header, **change)


def test_an_exact_picture_has_no_filter() -> None:
    tile = exact.pack(PAGE.pixels)
    file = dataclasses.replace(file_of(tile.payload, tile.checksum), filter=bytes(11))
    with pytest.raises(FormatError, match="filter"):
        container.write(file)


def test_without_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written that this Pillow could not read; other files say what is missing."""
    data = codec.encode_picture(PAGE)
    monkeypatch.setattr(vp8l, "available", lambda: False)
    assert not container.read_header(codec.encode_picture(PAGE)).exact
    with pytest.raises(UnsupportedError, match="Pillow with WebP"):
        codec.decode_file(data)


def test_the_command_says_so(tmp_path: Path) -> None:
    Image.fromarray(PAGE.pixels).save(tmp_path / "page.png")
    name = str(tmp_path / "page.aec")
    result = CliRunner().invoke(cli.cli, ["compress", str(tmp_path / "page.png"), "--verify"])
    assert ", exact, " in result.output, result.output
    result = CliRunner().invoke(cli.cli, ["info", name])
    assert "every sample is kept" in result.output
