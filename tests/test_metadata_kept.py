"""What belongs to a picture besides its pixels: through the file and back, from PNG to PNG."""

from __future__ import annotations

import functools
import struct
from pathlib import Path

import numpy as np
import pytest
import synthetic
from PIL import Image, ImageCms

import aecodec
from aecodec import cli, container, picture
from aecodec.picture import Picture

ALL = ["ICC", "EXIF", "XMP"]


@functools.cache  # a profile holds the second in which it was made
def wide_gamut() -> bytes:
    """A real profile whose description says another space than sRGB."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"sRGB", b"Wide")


def exif_with(orientation: int) -> bytes:
    software = struct.pack("<HHII", 0x0131, 2, 4, 0x00636561)
    turned = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 2) + turned + software + bytes(4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    drawn = Picture(
        synthetic.picture("RGB", 48, 40).pixels,
        icc=wide_gamut(),
        exif=exif_with(1),
        xmp=synthetic.XMP,
    )
    picture.save(drawn, path)
    return path


@pytest.mark.parametrize(
    ("choice", "kept"),
    [("all", ALL), ("icc", ["ICC"]), ("none", []), (None, ALL)],
)
def test_choice_through_the_command(choice: str | None, kept: list[str], source: Path) -> None:
    target, back = source.with_name("out.aec"), source.with_name("back.png")
    option = ["--metadata", choice] if choice else []
    assert cli.run(["compress", "--quiet", *option, str(source), str(target)]) == 0
    assert [name for name, _ in aecodec.info(target.read_bytes()).chunks[:-1]] == kept
    assert cli.run(["decompress", "--quiet", str(target), str(back)]) == 0
    loaded = picture.load(back)
    found = {"ICC": loaded.icc, "EXIF": loaded.exif, "XMP": loaded.xmp}
    assert [name for name, block in found.items() if block] == kept
    if "EXIF" in kept:
        with Image.open(back) as image:
            assert image.getexif()[0x0131] == "aec"


def test_dropping_metadata_changes_no_pixel(source: Path) -> None:
    loaded = picture.to_image(picture.load(source))
    files = [aecodec.encode(loaded, metadata=choice) for choice in ("all", "icc", "none")]
    assert len(files[0]) > len(files[1]) > len(files[2])
    tiles = [container.read(data).tiles for data in files]
    assert tiles[0] == tiles[1] == tiles[2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation: int, tmp_path: Path) -> None:
    """The picture as it is meant to be seen, and a tag that turns it no more."""
    drawn = synthetic.plane(40, 24)
    path = tmp_path / "in.png"
    image = Image.fromarray(drawn)
    image.save(path, exif=b"Exif\0\0" + exif_with(orientation))
    aecodec.compress(path, tmp_path / "out.aec", 95)
    back = aecodec.decode((tmp_path / "out.aec").read_bytes())
    assert back.size == ((40, 24) if orientation < 5 else (24, 40))
    assert back.getexif()[0x0112] == 1
    seen = np.asarray(aecodec.decode(aecodec.encode(picture.to_image(picture.load(path)), 95)))
    assert np.abs(np.asarray(back).astype(int) - seen).max() <= 1
    flat = {2: drawn[:, ::-1], 3: drawn[::-1, ::-1], 4: drawn[::-1], 5: drawn.T,
            6: drawn[::-1].T, 7: drawn[::-1, ::-1].T, 8: drawn.T[::-1]}  # fmt: skip
    upright = flat.get(orientation, drawn).astype(int)
    assert np.abs(np.asarray(back) - upright).mean() < 20


def test_wide_gamut_pixels_are_not_converted(source: Path) -> None:
    """The same pixels with and without the profile give the same payload."""
    loaded = picture.load(source)
    assert loaded.icc == wide_gamut()
    with_profile = aecodec.encode(picture.to_image(loaded), metadata="icc")
    without = aecodec.encode(loaded.pixels)
    assert container.read(with_profile).tiles == container.read(without).tiles
    back = aecodec.decode(with_profile)
    assert back.info["icc_profile"] == wide_gamut()
