"""EXIF and XMP blocks: only the orientation changes, nothing crashes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aecodec.metadata import upright_exif, upright_xmp


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_orientation_of_the_exif_block_changes(order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0xABCD)
    block = mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4) + b"maker notes"
    upright = upright_exif(block)
    expected = struct.pack(order + "HHIHH", 0x0112, 3, 1, 1, 0)
    assert upright == block.replace(entry, expected)
    for size in range(len(block) - 15):
        upright_exif(block[:size])


@given(st.binary(max_size=80))
def test_any_block_keeps_its_length(noise: bytes) -> None:
    for block in (noise, b"II*\0\x08\0\0\0" + noise, b"MM\0*\0\0\0\x08" + noise):
        upright = upright_exif(block)
        assert upright is not None
        assert len(upright) == len(block)


def test_xmp_in_all_spellings() -> None:
    assert upright_xmp(b'tiff:Orientation="6"') == b'tiff:Orientation="1"'
    assert upright_xmp(b"tiff:Orientation='8'") == b"tiff:Orientation='1'"
    assert upright_xmp(b"<tiff:Orientation>3</tiff:Orientation>") == (
        b"<tiff:Orientation>1</tiff:Orientation>"
    )
    assert upright_xmp(b"<x/>") == b"<x/>"
    assert upright_xmp(None) is None
    assert upright_exif(None) is None
