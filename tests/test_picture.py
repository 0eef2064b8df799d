"""Pictures in and out: every kind is kept as stated or refused with one line."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from aecodec import container, picture
from aecodec.errors import AecError, FileError, LimitError, PictureError
from aecodec.picture import Picture, from_array, from_image, load, save, to_image

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), np.uint8)
XMP = b'<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>'


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def oriented(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = value, "maker"
    return exif.tobytes()


def test_limits_are_those_of_the_file_format() -> None:
    assert (picture.MAX_SIDE, picture.MAX_PIXELS) == (container.MAX_SIDE, container.MAX_PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_modes_survive_files(mode: str, suffix: str, tmp_path: Path) -> None:
    grey = mode[0] == "L"
    kept = Picture(RGB[..., 0] if grey else RGB, ALPHA if mode[-1] == "A" else None)
    save(kept, tmp_path / f"a{suffix}")
    back = load(tmp_path / f"a{suffix}")
    expected = kept.pixels
    if grey and suffix == ".webp":  # WebP knows no grey
        expected = np.dstack([kept.pixels] * 3)
    assert np.array_equal(back.pixels, expected)
    assert (back.alpha is None) == (kept.alpha is None)
    assert kept.alpha is None or np.array_equal(back.alpha, kept.alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_higher_than_a_strip(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_STRIP", 2)
    planes = {"L": RGB[..., 0], "RGB": RGB, "RGBA": np.dstack((RGB, ALPHA))}
    back = from_image(Image.fromarray(planes[mode]))
    assert np.array_equal(back.pixels, RGB[..., 0] if mode == "L" else RGB)
    assert back.alpha is None or np.array_equal(back.alpha, ALPHA)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_image_and_array_agree(mode: str) -> None:
    array = RNG.integers(0, 256, (4, 3, len(mode)), np.uint8)
    array = array[..., 0] if mode == "L" else array
    made = from_array(array)
    image = to_image(made)
    assert image.mode == mode
    assert np.array_equal(np.asarray(image), array)
    back = from_image(image)
    assert np.array_equal(back.pixels, made.pixels)
    assert (back.width, back.height) == (3, 4)


def test_from_array_copies() -> None:
    array = RGB.copy()
    made = from_array(array)
    array[:] = 0
    assert np.array_equal(made.pixels, RGB)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2)), "float64"),
        (np.zeros((2, 2), np.uint16), "uint16"),
        (np.zeros((2, 2, 5), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((0, 2), np.uint8), "2x0"),
        (np.zeros((65536, 1, 3), np.uint8), "1x65536"),
    ],
)
def test_arrays_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(AecError, match=message):
        from_array(array)


def test_stated_conversions() -> None:
    two_levels = load(encoded(Image.fromarray(ALPHA).convert("1")))
    assert two_levels.pixels.ndim == 2
    assert set(np.unique(two_levels.pixels)) <= {0, 255}
    palette = Image.fromarray(RGB).quantize(8)
    plain = load(encoded(palette))
    assert plain.alpha is None
    assert np.array_equal(plain.pixels, np.asarray(palette.convert("RGB")))
    clear = load(encoded(palette, transparency=3))
    assert clear.alpha is not None
    assert np.array_equal(clear.alpha == 0, np.asarray(palette) == 3)
    key = load(encoded(Image.fromarray(RGB), transparency=tuple(RGB[2, 3].tolist())))
    assert key.alpha is not None
    assert key.alpha[2, 3] == 0
    assert np.array_equal(key.pixels, RGB)
    grey = load(encoded(Image.fromarray(ALPHA), transparency=int(ALPHA[1, 1])))
    assert grey.alpha is not None
    assert np.array_equal(grey.alpha == 0, ALPHA[1, 1] == ALPHA)
    assert grey.pixels.ndim == 2
    clear_black = load(encoded(Image.fromarray(ALPHA).convert("1"), transparency=0))
    assert clear_black.alpha is not None
    assert clear_black.pixels.ndim == 2
    assert np.array_equal(clear_black.alpha, clear_black.pixels)


def ppm16(kind: bytes, planes: int) -> bytes:
    return kind + b" 2 1 65535\n" + bytes(2 * 2 * planes)


def png16(colour: int, planes: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, colour, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1 + 2 * 2 * planes)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


FRAMES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
REFUSED = [
    ("cmyk", encoded(Image.new("CMYK", (4, 4)), "JPEG"), "CMYK"),
    ("lab", encoded(Image.new("LAB", (4, 4)), "TIFF"), "mode LAB"),
    ("float", encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point"),
    ("integer", encoded(Image.new("I", (4, 4)), "TIFF"), "more than 8 bits"),
    ("grey tiff 16", encoded(Image.new("I;16", (4, 4)), "TIFF"), "more than 8 bits"),
    ("grey png 16", png16(0, 1), "more than 8 bits"),
    ("rgb png 16", png16(2, 3), "more than 8 bits"),
    ("grey alpha png 16", png16(4, 2), "more than 8 bits"),
    ("rgba png 16", png16(6, 4), "more than 8 bits"),
    ("pgm 16", ppm16(b"P5", 1), "more than 8 bits"),
    ("ppm 16", ppm16(b"P6", 3), "more than 8 bits"),
    ("gif", encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "3 frames"),
    ("apng", encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "3 frames"),
    ("webp", encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "3 frames"),
    ("tiff", encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "3 frames"),
    ("empty", b"", "not a picture"),
    ("text", b"hello", "not a picture"),
    ("aec", b"\x89AEC" + bytes(40), "not a picture"),
    ("cut", encoded(Image.fromarray(RGB), "JPEG")[:-30], "cannot be"),
    ("cut png", encoded(Image.fromarray(RGB))[:70], "cannot be"),
]


@pytest.mark.parametrize(("name", "data", "message"), REFUSED)
def test_refusals_are_one_line_and_name_the_file(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(PictureError, match=message):
        load(data)
    path = tmp_path / f"{name}.bin"
    path.write_bytes(data)
    with pytest.raises(PictureError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_first_frame_when_asked_for() -> None:
    data = next(data for name, data, _ in REFUSED if name == "apng")
    assert (load(data, first_frame=True).pixels == (255, 0, 0)).all()


def test_first_picture_of_a_phones_jpeg() -> None:
    data = encoded(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert load(data).pixels[0, 0, 0] > 200


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FileError, match=str(path)):
            load(path)


def test_open_files_are_read() -> None:
    assert np.array_equal(load(io.BytesIO(encoded(Image.fromarray(RGB)))).pixels, RGB)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_pixel_limit_is_ours_alone(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    data = encoded(Image.fromarray(RGB), format)
    assert load(data, max_pixels=35).width == 7
    assert Image.MAX_IMAGE_PIXELS == 2
    with pytest.raises(LimitError, match="7x5 is above the limit of 34"):
        load(data, max_pixels=34)


def test_bomb_is_refused_by_its_head() -> None:
    head = bytearray(encoded(Image.fromarray(RGB)))
    head[16:24] = struct.pack(">II", 30000, 30000)
    head[29:33] = struct.pack(">I", zlib.crc32(head[12:29]))
    with pytest.raises(LimitError, match="30000x30000"):
        load(bytes(head))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_once(value: int, format: str) -> None:
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    data = encoded(Image.fromarray(RGB), format, exif=oriented(value), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    back = load(data)
    assert np.array_equal(back.pixels, upright)
    if format != "TIFF":
        assert back.exif is not None
        assert b"maker" in back.exif
        exif = Image.Exif()
        exif.load(back.exif)
        assert exif[0x0112] == 1
        assert exif[0x010F] == "maker"
    again = load(encoded(to_image(back), exif=to_image(back).info.get("exif", b"")))
    assert np.array_equal(again.pixels, upright)


def test_orientation_turns_alpha_too() -> None:
    image = Image.fromarray(np.dstack((RGB, ALPHA)))
    back = load(encoded(image, exif=oriented(6)))
    assert back.alpha is not None
    assert np.array_equal(back.alpha, np.rot90(ALPHA, -1))
    assert back.alpha.flags.c_contiguous
    assert back.pixels.flags.c_contiguous


def test_orientation_in_xmp_alone() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    back = load(encoded(Image.fromarray(RGB), pnginfo=text))
    assert np.array_equal(back.pixels, np.rot90(RGB, -1))
    assert back.xmp == XMP.replace(b'"6"', b'"1"')


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_refuse_the_pixels() -> None:
    back = load(encoded(Image.fromarray(RGB), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert np.array_equal(back.pixels, RGB)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tif", ".avif"])
def test_metadata_is_written_back(suffix: str, tmp_path: Path) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = oriented(1).removeprefix(b"Exif\0\0")
    kept = Picture(RGB, None, icc, exif, XMP.replace(b"6", b"1"))
    save(kept, tmp_path / f"a{suffix}")
    back = load(tmp_path / f"a{suffix}")
    assert (back.icc, back.xmp) == (kept.icc, kept.xmp)
    assert suffix == ".tif" or (back.exif is not None and b"maker" in back.exif)
    info = to_image(kept).info
    assert set(info) == {"icc_profile", "exif", "xmp"}


def test_save_refusals(tmp_path: Path) -> None:
    kept = Picture(RGB, ALPHA)
    for name, message in (("a.jpg", "cannot hold alpha"), ("a.ppm", "alpha"), ("a.x", "suffix")):
        with pytest.raises(PictureError, match=message) as caught:
            save(kept, tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(PictureError, match="cannot write NOPE"):
        save(kept, io.BytesIO(), "nope")
    with pytest.raises(PictureError, match="suffix"):
        save(kept, io.BytesIO())
    long = Picture(RGB, None, None, oriented(1)[6:] + bytes(70000))
    with pytest.raises(PictureError, match="cannot be written as JPEG"):
        save(long, tmp_path / "a.jpg")
    with pytest.raises(FileError, match="none"):
        save(kept, tmp_path / "none" / "a.png")
    assert not list(tmp_path.iterdir())


def test_save_to_open_file_and_formats_without_grey() -> None:
    for pixels, alpha in ((ALPHA, None), (ALPHA, ALPHA)):
        out = io.BytesIO()
        save(Picture(pixels, alpha), out, "qoi")
        back = load(out.getvalue())
        assert np.array_equal(back.pixels, np.dstack([ALPHA] * 3))
        assert alpha is None or np.array_equal(back.alpha, alpha)  # type: ignore[arg-type]


SEEDS = [
    encoded(Image.fromarray(RGB), format, exif=oriented(6))
    for format in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF")
] + [encoded(Image.fromarray(RGB), format) for format in ("GIF", "BMP", "PPM", "TGA", "JPEG2000")]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_damaged_files_are_refused_or_read(seed: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(seed)
    for place, value in changes:
        damaged[int(place * (len(seed) - 1))] = value
    with contextlib.suppress(AecError):
        load(bytes(damaged), max_pixels=10**6)
