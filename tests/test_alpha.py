"""The alpha plane: exactness, literal bytes, refusal of every other body."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aecodec import alpha as module
from aecodec.alpha import pack_alpha, unpack_alpha
from aecodec.errors import FormatError, SymbolError, UnsupportedError
from aecodec.head import vp8l_start

RAMP = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8)
DISC = np.hypot(*np.mgrid[-100:100, -150:150]) < 80
DISC = DISC.astype(np.uint8) * np.uint8(255)


def pack(rows: bytes) -> bytes:
    return b"\x01" + zlib.compress(rows)


def test_what_is_drawn_is_smaller_as_vp8l() -> None:
    body = pack_alpha(DISC)
    assert body[0] == 2
    assert len(body) < 0.9 * len(module._deflated(DISC))
    assert np.array_equal(unpack_alpha(body, 200, 300), DISC)
    with pytest.raises(SymbolError, match="not the one"):
        unpack_alpha(body[:1] + bytes([body[1] ^ 1]) + body[2:], 200, 300)


def test_no_vp8l_where_it_would_take_much_memory_or_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane, body = DISC, pack_alpha(DISC)
    wide = np.tile(synthetic.text(1024, 8), (1, 17))
    assert pack_alpha(wide)[0] == 1
    monkeypatch.setattr(module, "_VP8L_SAMPLES", plane.size - 1)
    assert pack_alpha(plane)[0] == 1
    with pytest.raises(FormatError, match="unknown way"):
        unpack_alpha(body, 200, 300)
    monkeypatch.undo()
    monkeypatch.setattr(module.vp8l, "available", lambda: False)
    assert pack_alpha(plane)[0] == 1
    with pytest.raises(UnsupportedError, match="Pillow with WebP"):
        unpack_alpha(body, 200, 300)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_plane_is_kept_exactly(plane: np.ndarray) -> None:
    assert np.array_equal(unpack_alpha(pack_alpha(plane), *plane.shape), plane)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (700, 900)])
def test_planes_of_several_bands(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BAND", 5000)
    monkeypatch.setattr(module, "_FEED", 100)
    rng = np.random.default_rng(1)
    for plane in (rng.integers(0, 256, shape), np.add.outer(*map(np.arange, shape)) // 3):
        plane = plane.astype(np.uint8)
        for body in (pack_alpha(plane), module._deflated(plane)):
            assert np.array_equal(unpack_alpha(body, *shape), plane)


def test_constant_plane_is_two_bytes() -> None:
    assert pack_alpha(np.full((5000, 3000), 255, np.uint8)) == b"\x00\xff"
    assert (unpack_alpha(b"\x00\x80", 2, 3) == 128).all()


def test_smooth_plane_is_small() -> None:
    assert len(pack_alpha(RAMP)) < 60


def test_literal_filters() -> None:
    """One row per filter, worked out by hand from the document."""
    rows = bytes([0, 10, 20, 1, 5, 250, 2, 1, 2, 3, 1, 255])
    assert unpack_alpha(pack(rows), 4, 2).tolist() == [[10, 20], [5, 255], [6, 1], [7, 1]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "unknown way"),
        (b"\x00", "unknown way"),
        (b"\x00\x01\x02", "unknown way"),
        (b"\x03abc", "unknown way"),
        (b"\x02", "VP8L"),
        (b"\x02ab" + vp8l_start(4, 2) + b"stream", "VP8L"),
        (b"\x02ab" + vp8l_start(2, 4, True) + b"stream", "VP8L"),
        (b"\x02ab" + vp8l_start(2, 4) + b"stream", "cannot be decoded"),
        (b"\x01", "too short"),
        (b"\x01not zlib", "cannot be inflated"),
        (pack(bytes(11)), "too short"),
        (pack(bytes(13)), "too long"),
        (pack(bytes(12))[:-1], "does not end"),
        (pack(bytes(12))[:-1] + b"\x77", "cannot be inflated"),
        (pack(bytes(12)) + b"x", "does not end"),
        (pack(b"\x04" + bytes(11)), "unknown filter 4"),
    ],
)
def test_refusals(body: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        unpack_alpha(body, 4, 2)


def test_bomb_is_not_inflated() -> None:
    bomb = pack(bytes(20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="too long"):
            unpack_alpha(bomb, 4, 2)
        with pytest.raises(FormatError, match="too short"):
            unpack_alpha(bomb[:1000], 16384, 16384)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_random_bodies_never_crash(body: bytes) -> None:
    for data in (body, b"\x01" + body, b"\x02ab" + vp8l_start(2, 4) + body):
        try:
            plane = unpack_alpha(data, 4, 2)
        except (FormatError, SymbolError):
            continue
        assert plane.shape == (4, 2)
