"""Pillow opens and saves .aec files like any other format."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path

import fake_codec
import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError

import aecodec
from aecodec import container
from aecodec.errors import PictureError
from aecodec.pillow_plugin import MIME, AecImageFile

ICC, XMP = b"a colour profile", b"<x:xmpmeta/>"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aecodec.codec", fake_codec.module())
    monkeypatch.setattr(aecodec, "codec", sys.modules["aecodec.codec"], raising=False)
    fake_codec.calls.clear()


def picture(mode: str, size: tuple[int, int] = (61, 47)) -> Image.Image:
    """A gradient, so that a lossy result can be told from a wrong one."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    rgba = Image.fromarray(np.stack([x, y, 255 - x, y], axis=2).astype(np.uint8))
    return rgba.convert(mode) if mode in ("LA", "RGBA") else rgba.convert("RGB").convert(mode)


def saved(image: Image.Image, **options: object) -> io.BytesIO:
    out = io.BytesIO()
    image.save(out, "AEC", **options)
    out.seek(0)
    return out


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_round_trip(mode: str, tmp_path: Path) -> None:
    image, path = picture(mode), tmp_path / "a.aec"
    image.save(path, quality=95)
    with Image.open(path) as back:
        assert (back.format, back.mode, back.size) == ("AEC", mode, (61, 47))
        assert back.get_format_mimetype() == MIME == "image/x-aec"
        difference = np.abs(np.asarray(back, np.int16) - np.asarray(image, np.int16))
    assert difference.max() <= 2
    if mode.endswith("A"):
        assert not difference[..., -1].any()


@pytest.mark.parametrize("wrong", [0, 10, "x"])
def test_effort(wrong: object) -> None:
    assert saved(picture("RGB"), effort=4).getvalue() == saved(picture("RGB")).getvalue()
    with pytest.raises(ValueError, match="whole number from 1 to 9"):
        saved(picture("RGB"), effort=wrong)


def test_model() -> None:
    saved(picture("RGB"), model="small")
    saved(picture("RGB"))
    assert fake_codec.models_seen[-2:] == ["small", ""]


def test_suffix_and_mime_type_are_registered() -> None:
    assert Image.registered_extensions()[".aec"] == "AEC"
    assert Image.MIME["AEC"] == MIME


def test_opening_decodes_nothing() -> None:
    data = saved(picture("RGB"), icc_profile=ICC)
    fake_codec.calls.clear()
    image = Image.open(data)
    assert (image.size, image.mode, image.info["icc_profile"]) == ((61, 47), "RGB", ICC)
    assert not fake_codec.calls
    image.load()
    image.load()
    assert fake_codec.calls == ["decode"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n" + bytes(60), b"\x89AE", b"\x89AEC"])
def test_other_files_are_left_to_other_plugins(data: bytes) -> None:
    with pytest.raises(SyntaxError):
        AecImageFile(io.BytesIO(data))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))


def test_a_newer_version_is_named() -> None:
    data = bytearray(saved(picture("L")).getvalue())
    data[4] = 9
    with pytest.warns(UserWarning, match="version 9"), pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))


def test_truncation() -> None:
    data = saved(picture("RGB"), icc_profile=ICC).getvalue()
    for length in range(16):
        with pytest.raises(SyntaxError):
            AecImageFile(io.BytesIO(data[:length]))
    for length in range(container.HEAD_MAX, len(data), 23):
        image = Image.open(io.BytesIO(data[:length]))
        with pytest.raises(OSError, match=r"cut short|damaged"):
            image.load()


def test_damage_shows_on_load_and_on_verify() -> None:
    data = bytearray(saved(picture("RGB")).getvalue())
    data[-9] ^= 1
    with pytest.raises(OSError, match="damaged"):
        Image.open(io.BytesIO(data)).load()
    with pytest.raises(OSError, match="damaged"):
        Image.open(io.BytesIO(data)).verify()
    data[-9] ^= 1
    Image.open(io.BytesIO(data)).verify()


def test_damaged_files_load_where_pillow_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture("RGB")).getvalue()[:-9]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (128, 128, 128)


def test_pillows_limit_on_pixels_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture("RGB")).getvalue()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    fake_codec.calls.clear()
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert not fake_codec.calls


@pytest.mark.parametrize("mode", ["CMYK", "F", "I", "I;16", "YCbCr"])
def test_modes_that_are_not_handled(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.aec"
    with pytest.raises(PictureError, match="not handled"):
        Image.new(mode, (4, 4)).save(path)
    assert not path.exists()


@pytest.mark.parametrize(("mode", "back"), [("1", "L"), ("P", "RGB")])
def test_modes_that_become_others(mode: str, back: str) -> None:
    assert Image.open(saved(picture(mode))).mode == back


def test_quality() -> None:
    sizes = [len(saved(picture("RGB"), quality=q).getvalue()) for q in (10, 75, 95.5)]
    assert sizes == sorted(set(sizes))
    assert len(saved(picture("RGB")).getvalue()) == sizes[1]
    assert Image.open(saved(picture("RGB"), quality=95.5)).info["quality"] == 95.5
    with pytest.raises(ValueError, match="101"):
        saved(picture("RGB"), quality=101)


def test_metadata_given() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    image = Image.open(saved(picture("RGB"), exif=exif, icc_profile=ICC, xmp=XMP))
    assert image.getexif()[0x010E] == "a description"
    assert (image.info["icc_profile"], image.info["xmp"]) == (ICC, XMP)
    plain = Image.open(saved(picture("RGB"), exif=exif.tobytes().removeprefix(b"Exif\0\0")))
    assert plain.getexif()[0x010E] == "a description"


def test_metadata_is_kept_and_can_be_left_out() -> None:
    image = Image.open(saved(picture("RGB"), icc_profile=ICC, xmp=XMP))
    again = Image.open(saved(image))
    assert (again.info["icc_profile"], again.info["xmp"]) == (ICC, XMP)
    stripped = Image.open(saved(image, icc_profile=None, xmp=b""))
    assert not {"icc_profile", "xmp"} & set(stripped.info)
    assert image.info["icc_profile"] == ICC


def test_orientation_is_applied_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture("RGB")
    back = Image.open(saved(image, exif=exif, quality=100))
    assert back.size == (47, 61)
    assert back.getexif()[0x0112] == 1
    assert image.size == (61, 47)


def test_files_that_others_opened_stay_open(tmp_path: Path) -> None:
    path = tmp_path / "a.aec"
    picture("L").save(path)
    with open(path, "rb") as file:
        Image.open(file).load()
        assert not file.closed
    image = Image.open(path)
    image.close()
    with pytest.raises(ValueError, match="closed"):
        image.load()


def test_pickled_images() -> None:
    image = Image.open(saved(picture("RGB")))
    back = pickle.loads(pickle.dumps(image))
    assert back.tobytes() == image.tobytes()
    assert back.info["quality"] == 75


def test_with_imageio(tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v3")
    picture("RGB").save(tmp_path / "a.aec")
    assert imageio.imread(tmp_path / "a.aec", plugin="pillow").shape == (47, 61, 3)
