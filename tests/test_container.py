"""The container: golden bytes, one test per refusal, round trips, mutations."""

from __future__ import annotations

import dataclasses
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aecodec import container
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import (
    AecError,
    ChecksumError,
    FormatError,
    LimitError,
    UnsupportedError,
)

MODEL = bytes.fromhex("0a1b2c3d")
# 3x2 RGB, quality 75, one tile: the head without its check.
GOLDEN_HEAD = bytes.fromhex("89414543 01 0a1b2c3d 01 02 01 cc3a")
HEADER = Header(MODEL, Colour.RGB, False, 3, 2, 7500)
SMALL = AecFile(HEADER, (Tile(0x1234, b"abc"),))
TURNED = dataclasses.replace(
    SMALL, header=dataclasses.replace(HEADER, axes=(5, -6, 127, 1, -2, -127))
)
FULL = AecFile(
    Header(MODEL, Colour.GREY, True, 200, 130, 10000, 128),
    tuple(Tile(index, b"payload"[index:]) for index in range(4)),
    alpha=b"alpha plane",
    icc=b"profile",
    exif=b"MM\0*exif",
    xmp=b"<x/>",
    filter=b"last weights",
)


def with_check(head: bytes) -> bytes:
    return head + struct.pack("<H", zlib.crc32(head) & 0xFFFF)


def chunk(kind: int, body: bytes, head: bytes = GOLDEN_HEAD, length: bytes | None = None) -> bytes:
    start = bytes([kind]) + (bytes([len(body)]) if length is None else length)
    return start + body + struct.pack("<I", zlib.crc32(with_check(head) + start + body))


def last(body: bytes, head: bytes = GOLDEN_HEAD) -> bytes:
    return chunk(0x7C, body, head, length=b"")


TILE = last(b"\x34\x12abc")


def test_golden_bytes() -> None:
    """Any change of these bytes is a new version of the format."""
    assert container.write(SMALL) == with_check(GOLDEN_HEAD) + TILE
    assert container.read(with_check(GOLDEN_HEAD) + TILE) == SMALL
    assert container.write(SMALL).hex(" ") == (
        "89 41 45 43 01 0a 1b 2c 3d 01 02 01 cc 3a ff df 7c 34 12 61 62 63 cd 24 6d 28"
    )


def test_turned_axes() -> None:
    head = bytes.fromhex("89414543 01 0a1b2c3d 09 02 01 cc3a 05fa7f 01fe81")
    assert container.write(TURNED) == with_check(head) + last(b"\x34\x12abc", head)
    assert container.read(container.write(TURNED)) == TURNED


def test_full_file_round_trips_and_is_deterministic() -> None:
    data = container.write(FULL)
    assert container.read(data) == FULL
    assert container.write(container.read(data)) == data
    assert container.read_header(data[: container.HEAD_MAX]) == FULL.header
    names = [chunk.name for chunk in container.walk(data)]
    assert names == ["ICC", "EXIF", "XMP", "FILTER", "ALPHA", "TILE", "TILE", "TILE", "TILE"]


def test_is_aec() -> None:
    assert container.is_aec(b"\x89AEC")
    assert container.is_aec(container.write(FULL))
    assert not container.is_aec(b"\x89PNG\r\n\x1a\n")
    assert not container.is_aec(b"")


@pytest.mark.parametrize("size", [(1, 1), (129, 128), (2048, 2048), (65535, 64), (8192, 512)])
@pytest.mark.parametrize("length", [1, 100, 2**22])
def test_overhead_is_at_most_32_bytes(size: tuple[int, int], length: int) -> None:
    for axes, most in (((0,) * 6, 26), ((1, -2, 3, 0, 0, 0), 32)):
        header = dataclasses.replace(HEADER, width=size[0], height=size[1], axes=axes)
        data = container.write(AecFile(header, (Tile(2**16 - 1, bytes(length)),)))
        assert len(data) - length <= most


def test_largest_head_fits_head_max() -> None:
    header = Header(MODEL, Colour.RGB, True, 65535, 65535, 10000, 2048, (-127, 0, 127, 1, 2, 3))
    head = container.write(AecFile(header, (Tile(0, b"x"),) * 1024, alpha=b"a"))
    assert container.read_header(head[: container.HEAD_MAX], max_pixels=2**32) == header


def test_grid_covers_the_picture_once() -> None:
    boxes = list(FULL.header.boxes)
    assert (FULL.header.rows, FULL.header.columns, FULL.header.tile_count) == (2, 2, 4)
    assert boxes == [(0, 0, 128, 128), (128, 0, 200, 128), (0, 128, 128, 130), (128, 128, 200, 130)]
    assert list(HEADER.boxes) == [(0, 0, 3, 2)]


HEAD_CASES: list[tuple[str, bytes, type[AecError], str]] = [
    ("empty", b"", FormatError, "not an .aec file"),
    ("png", b"\x89PNG\r\n\x1a\n" + bytes(40), FormatError, "not an .aec file"),
    ("magic only", b"\x89AEC", FormatError, "cut short"),
    ("version 0", b"\x89AEC\x00" + bytes(40), UnsupportedError, "version 0"),
    ("version 2", b"\x89AEC\x02" + bytes(40), UnsupportedError, "version 2"),
    ("no check", GOLDEN_HEAD, FormatError, "cut short"),
    ("wrong check", GOLDEN_HEAD + bytes(2), ChecksumError, "head of the file is damaged"),
    ("exact grey of a model", b"\x89AEC\x01modl\x02\x02\x01\x90\x4e", FormatError, "no model"),
    ("exact at 75", b"\x89AEC\x01\0\0\0\0\x03\x02\x01\xcc\x3a", FormatError, "quality 100"),
    ("exact turned", b"\x89AEC\x01\0\0\0\0\x0b\x02\x01\x90\x4e" + b"\1" * 6, FormatError, "turned"),
    ("no axes", b"\x89AEC\x01modl\x09\x02\x01\xcc\x3a", FormatError, "cut short"),
    ("axes of 0", b"\x89AEC\x01modl\x09\x02\x01\xcc\x3a" + bytes(6), FormatError, "by nothing"),
    (
        "axes -128",
        b"\x89AEC\x01modl\x09\x02\x01\xcc\x3a\x80" + bytes(5),
        FormatError,
        "out of range",
    ),
    (
        "shift alone",
        b"\x89AEC\x01modl\x09\x02\x01\xcc\x3a\0\0\0\1\0\0",
        FormatError,
        "out of range",
    ),
    ("grey axes", b"\x89AEC\x01modl\x08\x02\x01\xcc\x3a\1" + bytes(5), FormatError, "only colours"),
    ("exact and layered", b"\x89AEC\x01\0\0\0\0\x83\x02\x01\x90\x4e", FormatError, "no layer"),
    ("long width", b"\x89AEC\x01modl\x01\x82\x00\x01\xcc\x3a", FormatError, "too many bytes"),
    ("wide width", b"\x89AEC\x01modl\x01\xff\xff\xff\x01\x01\xcc\x3a", FormatError, "too long"),
    ("side 65536", b"\x89AEC\x01modl\x11\xff\xff\x03\x00\x00", LimitError, "65536x1"),
    ("quality 10001", b"\x89AEC\x01modl\x01\x02\x01\x91\x4e", FormatError, "quality 100.01"),
    ("bomb", b"\x89AEC\x01modl\x71\xfe\xff\x03\xfe\xff\x03\x00", LimitError, "65535x65535"),
    ("untiled", b"\x89AEC\x01modl\x01\xff\x7f\xff\x7f\x00", LimitError, "tile of 16384x16384"),
]


@pytest.mark.parametrize(("name", "head", "error", "message"), HEAD_CASES)
def test_head_refusals(name: str, head: bytes, error: type[AecError], message: str) -> None:
    # Everything but the cases about the head's own length and check carries a right check.
    data = (
        head
        if name in ("empty", "png", "magic only", "no check", "wrong check")
        else with_check(head)
    )
    for reader in (container.read, container.read_header, container.walk):
        with pytest.raises(error, match=message):
            reader(data)


ICC = chunk(0x81, b"p")
CHUNK_CASES: list[tuple[str, bytes, type[AecError], str]] = [
    ("no tile", b"", FormatError, "cut short"),
    ("metadata only", ICC * 2, FormatError, "second ICC"),
    ("type only", b"\x7c", FormatError, "tiles do not fit"),
    ("type only after metadata", ICC + b"\x7c", FormatError, "cut short inside the chunk"),
    ("length beyond the end", b"\x02\x7f" + bytes(40), FormatError, "cut short inside the chunk"),
    ("non-canonical length", chunk(2, b"12abc", length=b"\x85\x00"), FormatError, "too many"),
    ("six-byte length", b"\x02\x80\x80\x80\x80\x80\x01" + bytes(40), FormatError, "too long"),
    ("wrong crc", TILE[:-1] + b"\x00", ChecksumError, "TILE chunk at byte 16 is damaged"),
    (
        "unseeded crc",
        TILE[:-4] + struct.pack("<I", zlib.crc32(TILE[:-4])),
        ChecksumError,
        "damaged",
    ),
    ("unknown critical", chunk(3, b"x") + TILE, UnsupportedError, "0x03 is unknown"),
    ("two icc", ICC + ICC + TILE, FormatError, "second ICC chunk at byte 23"),
    ("two unknown", chunk(0xFF, b"1") * 2 + TILE, FormatError, "second 0xff"),
    ("empty metadata", chunk(0x82, b"") + TILE, FormatError, "too short"),
    ("tile without payload", ICC + last(b"12"), FormatError, "too short"),
    ("tile without checksum", ICC + last(b""), FormatError, "too short"),
    ("alpha not announced", chunk(1, b"x") + TILE, FormatError, "without alpha"),
    ("not the last type", chunk(2, b"12abc"), FormatError, "do not agree"),
    ("two tiles", chunk(2, b"12abc") + TILE, FormatError, "do not agree"),
    ("second tile", TILE + TILE, ChecksumError, "TILE chunk at byte 16 is damaged"),
    ("metadata after tile", TILE + ICC, ChecksumError, "TILE chunk at byte 16 is damaged"),
    ("trailing byte", TILE + b"\x00", ChecksumError, "TILE chunk at byte 16 is damaged"),
    ("trailing bytes", TILE + bytes(60), ChecksumError, "TILE chunk at byte 16 is damaged"),
]


@pytest.mark.parametrize(("name", "chunks", "error", "message"), CHUNK_CASES)
def test_chunk_refusals(name: str, chunks: bytes, error: type[AecError], message: str) -> None:
    with pytest.raises(error, match=message):
        container.read(with_check(GOLDEN_HEAD) + chunks)


def test_alpha_must_stand_between_metadata_and_tiles() -> None:
    head = b"\x89AEC\x01modl\x15\xff\x01\x00\xcc\x3a"  # 256x1, tile side 128, alpha
    start, tile, end = with_check(head), chunk(2, b"12a", head), last(b"12a", head)
    alpha = chunk(1, b"x", head)
    assert container.read(start + alpha + tile + end).alpha == b"x"
    for chunks, message in (
        (tile + end, "ALPHA chunk is missing"),
        (tile + alpha + end, "ALPHA chunk is missing"),
        (alpha + alpha + tile + end, "second ALPHA"),
        (alpha + chunk(0x81, b"p", head) + tile + end, "out of order"),
        (alpha + tile + chunk(0x81, b"p", head) + end, "out of order"),
        (alpha + tile + ICC, "damaged"),
        (alpha + tile, "cut short"),
        (alpha + tile + tile, "do not agree"),
        (alpha + last(bytes(20), head), "do not agree"),
        (chunk(1, b"", head) + tile + end, "too short"),
        (chunk(0x55, bytes(10), head) + alpha + tile + end, "too short"),
        (alpha + chunk(0x55, bytes(11), head) + tile + end, "out of order"),
        (chunk(0x55, bytes(11), head) + chunk(0x81, b"p", head) + tile + end, "out of order"),
    ):
        with pytest.raises(FormatError, match=message):
            container.read(start + chunks)


def test_unknown_ancillary_chunk_is_skipped() -> None:
    assert container.read(with_check(GOLDEN_HEAD) + chunk(0xFE, b"later") + ICC + TILE) == (
        dataclasses.replace(SMALL, icc=b"p")
    )


def test_metadata_above_the_limit_is_refused_both_ways() -> None:
    body = bytes(container.MAX_METADATA + 1)
    with pytest.raises(LimitError, match="ICC chunk of 16777217 bytes"):
        container.write(dataclasses.replace(SMALL, icc=body))
    big = chunk(0x81, body, length=b"\x81\x80\x80\x08")
    with pytest.raises(LimitError, match="larger than 16777216"):
        container.read(with_check(GOLDEN_HEAD) + big + TILE)


def test_pixel_limit_is_the_callers() -> None:
    data = container.write(SMALL)
    assert container.read(data, max_pixels=6) == SMALL
    for reader in (container.read, container.read_header, container.walk):
        with pytest.raises(LimitError, match="3x2 is above the limit of 5 pixels"):
            reader(data, max_pixels=5)


def test_tile_count_must_fit_the_bytes() -> None:
    # 60 bytes that claim 16384x16384 in 128-pixel tiles: refused by counting, at once.
    head = b"\x89AEC\x01modl\x11\xff\x7f\xff\x7f\x00"
    start = time.perf_counter()
    with pytest.raises(FormatError, match="16384 tiles do not fit in 60 bytes"):
        container.read((with_check(head) + bytes(60))[:60])
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"width": 0}, LimitError),
        ({"height": 65536}, LimitError),
        ({"width": 8192, "height": 513}, LimitError),
        ({"width": 65535, "height": 512, "tile": 8192}, None),
        ({"width": 65535, "height": 513, "tile": 8192}, LimitError),
        ({"tile": 64}, FormatError),
        ({"tile": 16384}, FormatError),
        ({"quality": -1}, FormatError),
        ({"quality": 10001}, FormatError),
        ({"model_id": b"12345"}, FormatError),
    ],
)
def test_header_fields_are_checked(change: dict[str, object], error: type[AecError] | None) -> None:
    if error is None:
        assert dataclasses.replace(HEADER, **change)  # type: ignore[arg-type]
        return
    with pytest.raises(error):
        dataclasses.replace(HEADER, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"tiles": ()},
        {"tiles": SMALL.tiles * 2},
        {"tiles": (None,)},
        {"tiles": (Tile(0, b""),)},
        {"alpha": b"x"},
        {"header": dataclasses.replace(HEADER, alpha=True)},
        {"exif": b""},
    ],
)
def test_write_refuses_what_read_would_refuse(change: dict[str, object]) -> None:
    with pytest.raises(AecError):
        container.write(dataclasses.replace(SMALL, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("file", [SMALL, FULL, TURNED], ids=["small", "full", "turned"])
def test_every_flip_and_every_truncation_is_detected(file: AecFile) -> None:
    data = container.write(file)
    for index in range(len(data)):
        with pytest.raises(AecError):
            container.read(data[:index])
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            with pytest.raises(AecError):
                container.read(bytes(damaged))


def test_chunk_of_another_file_is_refused() -> None:
    other = container.write(
        dataclasses.replace(SMALL, header=dataclasses.replace(HEADER, quality=7501))
    )
    with pytest.raises(ChecksumError):
        container.read(container.write(SMALL)[:16] + other[16:])


def test_check_of_the_head_finds_every_changed_byte() -> None:
    """Without the chunks' help: it is all that `read_header` has."""
    heads = [GOLDEN_HEAD, bytes.fromhex("89414543 01 0a1b2c3d 71 feff03 feff03 904e")]
    for head in heads:
        check = zlib.crc32(head) & 0xFFFF
        for at in range(len(head)):
            for change in range(1, 256):
                changed = head[:at] + bytes([head[at] ^ change]) + head[at + 1 :]
                assert zlib.crc32(changed) & 0xFFFF != check


@pytest.mark.parametrize("stray", [b"\0", b"more", bytes(container.MAX_STRAY - 10)])
def test_damaged_ok_passes_over_appended_bytes(stray: bytes) -> None:
    for file in (SMALL, FULL):
        data = container.write(file) + stray
        with pytest.raises(ChecksumError):
            container.read(data)
        assert container.read(data, damaged_ok=True) == file
    assert container.read(container.write(SMALL) + bytes(2**17), damaged_ok=True).tiles == (None,)


def test_damaged_ok_keeps_what_is_intact() -> None:
    data = container.write(FULL)
    for number, part in enumerate(container.walk(data)):
        for offset in (part.offset, part.start, part.start + part.length):
            if part.name in ("ICC", "EXIF", "XMP") and offset == part.offset:
                continue  # metadata of an unknown type cannot be told from a tile
            damaged = bytearray(data)
            damaged[offset] ^= 0x40
            file = container.read(bytes(damaged), damaged_ok=True)
            expected = [FULL.icc, FULL.exif, FULL.xmp, FULL.filter, FULL.alpha, *FULL.tiles]
            expected[number] = None
            found = [file.icc, file.exif, file.xmp, file.filter, file.alpha, *file.tiles]
            assert found == expected


def test_damaged_ok_fills_a_file_cut_short() -> None:
    data = container.write(FULL)
    file = container.read(data[:-1], damaged_ok=True)
    assert file == dataclasses.replace(FULL, tiles=(*FULL.tiles[:3], None))
    file = container.read(data[:18], damaged_ok=True)
    assert file == AecFile(FULL.header, (None,) * 4)
    with pytest.raises(FormatError):
        container.read(data[:17], damaged_ok=True)


BODY = st.none() | st.binary(min_size=1, max_size=300)


@st.composite
def files(draw: st.DrawFn) -> AecFile:
    alpha = draw(BODY)
    header = Header(
        draw(st.binary(min_size=4, max_size=4)),
        draw(st.sampled_from(Colour)),
        alpha is not None,
        draw(st.integers(1, 1000)),
        draw(st.integers(1, 1000)),
        draw(st.integers(0, 10000)),
        draw(st.sampled_from((0, *container.TILE_SIDES))),
    )
    tile = st.builds(Tile, st.integers(0, 2**16 - 1), st.binary(min_size=1, max_size=200))
    tiles = draw(st.lists(tile, min_size=header.tile_count, max_size=header.tile_count))
    return AecFile(header, tuple(tiles), alpha, draw(BODY), draw(BODY), draw(BODY))


@settings(max_examples=60, deadline=None)
@given(files())
def test_any_file_round_trips(file: AecFile) -> None:
    data = container.write(file)
    assert container.read(data) == file
    assert container.read_header(data) == file.header
    assert len(list(file.header.boxes)) == len(file.tiles)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_mutation_is_refused_or_harmless(data: st.DataObject) -> None:
    original = container.write(FULL)
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 40)))
    mutated = original[:start] + data.draw(st.binary(max_size=40)) + original[end:]
    for damaged_ok in (False, True):
        try:
            file = container.read(mutated, damaged_ok=damaged_ok)
        except AecError:
            continue
        # Cutting out whole metadata chunks gives a valid file of the same picture.
        if not damaged_ok:
            assert (file.header, file.alpha, file.tiles) == (FULL.header, FULL.alpha, FULL.tiles)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash(noise: bytes) -> None:
    for data in (noise, b"\x89AEC\x01" + noise, with_check(GOLDEN_HEAD) + noise):
        with pytest.raises(AecError):
            container.read(data)
