"""Text, screens and drawings beside photographs: what repeats itself is exact, the rest is not."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from PIL import Image
from scripts import load_script

import aecodec
from aecodec import (
    choice,
    cli,
    codec,
    container,
    decoding,
    filling,
    layer,
    pillow_plugin,
    rate,
    repeats,
    transforms,
)
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import FormatError, SymbolError
from aecodec.head import vp8l_start
from aecodec.picture import Picture

Pixels = np.ndarray


def news(mode: str = "RGB", width: int = 256, height: int = 160) -> Picture:
    """A page of text with a photograph of a sort on its right half."""
    other = synthetic.picture(mode, width, height, metadata=True)
    page = synthetic.text(width, height)
    pixels = other.pixels.copy()
    left = width // 2
    pixels[:, :left] = (page if pixels.ndim == 2 else np.repeat(page[..., None], 3, 2))[:, :left]
    return dataclasses.replace(other, pixels=pixels)


NEWS = news()
FILE = codec.encode_picture(NEWS, 60)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)


def test_text_is_exact_and_the_photograph_no_worse_in_fewer_bytes() -> None:
    def error(data: bytes) -> float:
        back = codec.decode_file(data).pixels[:, 136:].astype(int)
        return float(np.square(back - NEWS.pixels[:, 136:]).mean())

    errors = np.zeros(2)
    for quality in (40, 60, 80):
        data = codec.encode_picture(NEWS, quality)
        plain = codec.encode_picture(NEWS, quality, exactly=False)
        assert len(data) < 0.6 * len(plain)
        assert (aecodec.info(data).layered, aecodec.info(data).exact) == (True, False)
        assert_array_equal(codec.decode_file(data).pixels[:, :120], NEWS.pixels[:, :120])
        errors += (error(data), error(plain))
    assert 0 < errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("side", [0, 128])
def test_every_mode_with_metadata_and_tiles(
    mode: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if side:
        monkeypatch.setattr(codec, "TILE", side)
        monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    source = news(mode, 201, 141)
    encoder = codec.Encoder(source, threads=2)
    data = encoder.encode(80)
    found = aecodec.info(data)
    assert (found.layered, found.mode, found.tiles) == (True, mode, 4 if side else 1)
    load_script("tools/check_aec.py").check_chunks(
        load_script("tools/check_aec.py").Bytes(data), []
    )
    back = codec.decode_file(data, threads=2)
    assert_array_equal(back.pixels, encoder.decoded().pixels)
    assert_array_equal(back.pixels[:, :90], source.pixels[:, :90])
    assert encoder.verify(data) == pytest.approx(rate.psnr(source, back))
    assert (back.icc, back.exif, back.xmp) == (source.icc, source.exif, source.xmp)
    if source.alpha is None:
        assert back.alpha is None
    else:
        assert_array_equal(back.alpha, source.alpha)


def test_threads_make_no_difference(tiles: None) -> None:
    files = {codec.encode_picture(NEWS, 60, threads=threads) for threads in (1, 2, 3)}
    assert len(files) == 1
    (data,) = files
    assert container.read_header(data).layered
    one, three = (codec.decode_file(data, threads=threads).pixels for threads in (1, 3))
    assert np.abs(one.astype(int) - three).max() <= 1


def test_at_low_quality_the_transform_is_smaller() -> None:
    """Where text has a ground that repeats itself little; from some quality on the layer pays."""
    noisy = NEWS.pixels.copy()
    noisy[:, :128] ^= np.random.default_rng(3).integers(0, 3, (160, 128, 1), np.uint8)
    encoder = codec.Encoder(Picture(noisy))
    files = [encoder.encode(quality) for quality in range(0, 101, 10)]
    layered = [container.read_header(data).layered for data in files]
    assert (layered[0], layered[-1]) == (False, True)
    assert layered == sorted(layered)
    assert [len(data) for data in files] == sorted({len(data) for data in files})


def test_targets() -> None:
    size = len(FILE)
    hit = aecodec.encode(NEWS.pixels, size=size, metadata="none")
    assert aecodec.info(hit).layered
    assert 0.97 * size < len(hit) <= size
    back = np.asarray(aecodec.decode(aecodec.encode(NEWS.pixels, psnr=38))).astype(float)
    decibels = 10 * np.log10(255**2 / np.square(back - NEWS.pixels).mean())
    assert decibels == pytest.approx(38, abs=0.07)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_photographs_have_no_layer(mode: str) -> None:
    with Image.open(Path(__file__).parent / "data" / "crop.png") as image:
        photograph = np.asarray(image.convert(mode))
    for pixels in (synthetic.picture(mode, 300, 200).pixels, photograph):
        assert repeats.covered(pixels) is None
        assert not repeats.promising(pixels)


def test_text_is_found_wherever_it_is() -> None:
    screen = np.full((1500, 3000), 90, np.uint8)
    screen[600:900, 1200:1800] = synthetic.text(600, 300)
    assert repeats.promising(screen)
    blocks = repeats.covered(screen)
    assert blocks is not None
    assert blocks[76:112, 151:224].all()


@pytest.mark.parametrize("size", [(100, 4000), (4000, 60), (300, 700), (2000, 9)])
def test_parts_that_are_looked_at_do_not_overlap(size: tuple[int, int]) -> None:
    """What is seen twice would seem to repeat itself."""
    width, height = size
    numbered = np.arange(width * height, dtype=np.uint32).view(np.uint8).reshape(height, width, 4)
    seen = repeats._patches(numbered).reshape(-1, 4)
    assert len(np.unique(seen, axis=0)) == len(seen)
    assert len(seen) > min(width * height, 2**16) / 8


def test_a_large_picture_is_judged_by_parts() -> None:
    boxes = list(choice.parts(3000, 700))
    assert boxes == [(488, 0, 1000, 700), (1992, 0, 2504, 700)]
    assert list(choice.parts(1024, 1)) == [(0, 0, 1024, 1)]
    assert all(box[0] % repeats.BLOCK == 0 for box in choice.parts(2467, 1))


def test_what_takes_most_is_not_even_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without photograph, larger than what is tried: the transform sees parts of it."""
    seen: list[int] = []
    encode = choice.TransformCoder.encode

    def counted(self: choice.TransformCoder, header: Header, *rest: object) -> object:
        seen.append(header.width * header.height)
        return encode(self, header, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(choice.TransformCoder, "encode", counted)
    page = np.repeat(synthetic.text(1100, 1100)[..., None], 3, 2)
    assert aecodec.info(codec.encode_picture(Picture(page))).exact
    assert seen == [512 * 512] * 4


def test_what_libwebp_cannot_hold() -> None:
    """Too wide for it, however often it repeats itself."""
    page = np.tile(synthetic.text(1000, 40), (1, 17))
    found = aecodec.info(aecodec.encode(page))
    assert (found.width, found.exact, found.layered) == (17000, False, False)


def test_filling_leaves_the_rest_alone() -> None:
    blocks = repeats.covered(NEWS.pixels)
    assert blocks is not None
    taken = repeats.enlarged(blocks, (0, 0, 256, 160))
    under = filling.filled(NEWS.pixels, taken)
    assert_array_equal(under[~taken], NEWS.pixels[~taken])
    assert np.abs(np.diff(under[:, :100].astype(int), axis=1)).max() < 16
    assert taken[:, :120].all()
    assert taken[:, 136:].mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 8), (17, 3), (300, 2, 3), (9, 40, 3)])
def test_any_size(shape: tuple[int, ...]) -> None:
    page = synthetic.text(*shape[1::-1])
    pixels = page if len(shape) == 2 else np.repeat(page[..., None], 3, 2)
    repeats.covered(pixels)
    hidden = np.ones(shape[:2], bool)
    assert filling.filled(pixels, hidden).shape == shape
    hidden[:1, :2] = False
    under = filling.filled(pixels, hidden)
    assert_array_equal(under[:1, :2], pixels[:1, :2])
    assert under.min() >= pixels[:1, :2].min()
    assert under.max() <= pixels[:1, :2].max()


def layered(over: bytes, payload: bytes = b"payload", width: int = 64, height: int = 32) -> bytes:
    header = Header(b"\1\2\3\4", Colour.RGB, False, width, height, 7500, layered=True)
    return container.write(AecFile(header, (Tile(0, payload, over),)))


def test_layers_that_are_not_of_the_tile() -> None:
    good = b"ab" + vp8l_start(64, 32, True)
    for over in (b"", good, b"ab" + vp8l_start(64, 32)):
        assert container.read(layered(over)).tiles == (Tile(0, b"payload", over),)
    for over in (b"a", good[:-1], b"ab" + vp8l_start(32, 64, True), b"ab" + vp8l_start(65, 32)):
        with pytest.raises(FormatError, match="VP8L"):
            container.read(layered(over))
        assert container.read(layered(over), damaged_ok=True).tiles == (None,)
    data = bytearray(layered(good))
    at = data.index(b"ab" + vp8l_start(64, 32, True)) - 1
    for length, message in ((len(good) + 7, "no payload"), (0x80, "too many bytes")):
        data[at : at + 2] = (
            bytes([length, 0]) if length == 0x80 else bytes([length]) + data[at + 1 : at + 2]
        )
        with pytest.raises(FormatError, match=message):
            container.read(load_script("tools/fuzz.py").resealed(bytes(data)))


def test_head_and_layers_agree() -> None:
    header = Header(b"\1\2\3\4", Colour.RGB, False, 64, 32, 7500)
    with pytest.raises(FormatError, match="do not agree"):
        container.write(AecFile(header, (Tile(0, b"x", b"layer"),)))
    with pytest.raises(FormatError, match="no layer"):
        Header(bytes(4), Colour.RGB, False, 64, 32, 10000, exact=True, layered=True)


def with_layer(data: bytes, change: bytes) -> bytes:
    """A file whose (first) layer is another."""
    file = container.read(data)
    first, *others = file.tiles
    assert first is not None
    return container.write(
        dataclasses.replace(file, tiles=(dataclasses.replace(first, layer=change), *others))
    )


def test_damage_in_a_layer(tiles: None) -> None:
    data = codec.encode_picture(NEWS, 60)
    over = container.read(data).tiles[0].layer  # type: ignore[union-attr]
    wrong = bytes([over[0] ^ 1]) + over[1:]
    with pytest.raises(SymbolError, match="layer are not those that were coded"):
        codec.decode_file(with_layer(data, wrong))
    with pytest.raises(FormatError, match="cannot be decoded"):
        codec.decode_file(with_layer(data, over[: len(over) // 2]))
    back, damage = codec.decode_damaged(with_layer(data, wrong))
    assert damage.tiles == ((0, 0, 128, 128),)
    assert np.all(back.pixels[:128, :128] == 128)
    assert_array_equal(back.pixels[128:, :120], NEWS.pixels[128:, :120])


def test_verification_finds_a_wrong_layer() -> None:
    encoder = codec.Encoder(NEWS)
    data = encoder.encode(60)
    samples, taken = layer.unpack(encoder._layers[0], 160, 256)
    encoder._digests[codec.digest(other := with_layer(data, layer.pack(samples ^ 1, taken)))] = (
        encoder._digests[codec.digest(data)]
    )
    assert encoder.verify(other) < encoder.verify(data)


@pytest.mark.parametrize("side", [0, 256])
def test_only_what_shows_is_painted(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if side:
        monkeypatch.setattr(codec, "TILE", side)
        monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    page = np.repeat(synthetic.text(640, 384)[..., None], 3, 2)
    photo = synthetic.picture("RGB", 104, 88).pixels
    page[:88, :104], page[-88:, -104:] = photo, photo[::-1]
    file = container.read(codec.encode_picture(Picture(page, None), 60))
    assert file.header.layered
    painted: list[tuple[int, ...]] = []
    synthesis = transforms.OnnxNetworks.synthesis

    def spy(self: transforms.OnnxNetworks, y_hat: Pixels, quality: int) -> Pixels:
        painted.append(y_hat.shape)
        return synthesis(self, y_hat, quality)

    monkeypatch.setattr(transforms.OnnxNetworks, "synthesis", spy)
    pixels = decoding.pixel_decoder(file, 2)(None)
    assert len(painted) == 2
    assert sum(h * w for _, h, w in painted) < 24 * 40 / 2
    monkeypatch.setattr(decoding, "layers_of", lambda *_: layer.no_layers)
    whole = decoding.pixel_decoder(file, 2)(None)
    assert len(painted) == (8 if side else 3)
    for part in (np.s_[:80, :96], np.s_[-80:, -96:]):
        assert np.abs(pixels[part].astype(int) - whole[part]).max() <= 1
    assert_array_equal(pixels[:96, 128:], page[:96, 128:])


def test_boxes_hold_all_that_is_open_and_leave_wide_gaps_out() -> None:
    rng = np.random.default_rng(3)
    for gap in (8, 20, 1000):
        taken = np.ones((90, 120), bool)
        for top, left in rng.integers(0, 90, (6, 2)):
            taken[top : top + 5, left : left + 9] = False
        boxes, covered = layer.open_boxes(taken, gap), np.zeros_like(taken)
        for left, top, right, bottom in boxes:
            assert not covered[top:bottom, left:right].any()
            covered[top:bottom, left:right] = True
            part = ~taken[top:bottom, left:right]
            for axis in (0, 1):
                seen = np.flatnonzero(part.any(axis))
                assert (seen[0], seen[-1]) == (0, part.shape[1 - axis] - 1)
                assert np.diff(seen, prepend=0).max() <= gap + 1
        assert np.all(covered | taken)
    assert len(boxes) == 1
    assert layer.open_boxes(np.ones((8, 8), bool), 4) == []
    assert layer.open_boxes(np.zeros((8, 9), bool), 4) == [(0, 0, 9, 8)]


def test_latents_are_those_of_the_picture() -> None:
    assert_array_equal(aecodec.read_latents(FILE), aecodec.latents(codec.decode_file(FILE).pixels))


def test_pillow_and_the_commands_say_so(tmp_path: Path) -> None:
    pillow_plugin.register()
    image = Image.open(io.BytesIO(FILE))
    assert_array_equal(np.asarray(image)[:, :120], NEWS.pixels[:, :120])
    Image.fromarray(NEWS.pixels).save(tmp_path / "page.png")
    result = CliRunner().invoke(cli.cli, ["compress", str(tmp_path / "page.png"), "-q", "60"])
    assert ", quality 60, partly exact, " in result.output, result.output
    result = CliRunner().invoke(cli.cli, ["info", str(tmp_path / "page.aec")])
    assert "60, but parts are exact" in result.output
