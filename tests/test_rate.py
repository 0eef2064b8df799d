"""The search that turns a size, a rate or a PSNR into a quality."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aecodec import distortion, rate, seen
from aecodec.errors import AecError
from aecodec.picture import Picture
from aecodec.rate import MAX_ENCODINGS, Target, parse_size, reach


class Curve:
    """A codec that is only a curve: size and PSNR as functions of the quality."""

    def __init__(self, size: Callable[[float], float], db: Callable[[float], float]) -> None:
        self.size, self.db = size, db
        self.qualities: list[float] = []

    def encode(self, quality: float) -> bytes:
        self.qualities.append(quality)
        return bytes(int(self.size(quality)))

    def measure(self, data: bytes) -> float:
        return self.db(self.qualities[-1])

    def reach(self, unit: rate.Unit, value: float, pixels: int = 393216) -> rate.Hit:
        return reach(Target(unit, value), pixels, self.encode, self.measure)


def typical(base: float = 3000, growth: float = 0.036) -> Curve:
    return Curve(lambda q: base * math.exp(growth * q), lambda q: 27 + 0.14 * q)


@settings(deadline=None)
@given(
    st.floats(200, 30000),
    st.floats(0.01, 0.06),
    st.floats(0.02, 0.98),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_sizes_are_met_and_never_exceeded(
    base: float, growth: float, share: float, bend: float
) -> None:
    # Growth that is faster at one end of the scale than a plain exponential has.
    curve = Curve(lambda q: base * math.exp(growth * 100 * (q / 100) ** bend), lambda q: q)
    limit = int(base * math.exp(growth * 100 * share))
    hit = curve.reach("size", limit)
    assert len(hit.data) <= limit
    assert len(hit.data) >= 0.98 * limit - 1
    assert len(hit.data) == int(curve.size(hit.quality))
    assert len(curve.qualities) <= MAX_ENCODINGS


@pytest.mark.parametrize("limit", [3500, 12000, 60000, 100000])
def test_few_encodings_on_a_typical_picture(limit: int) -> None:
    curve = typical()
    curve.reach("size", limit)
    assert len(curve.qualities) <= 6


@pytest.mark.parametrize("goal", [27.5, 30, 36, 40.9])
def test_psnr_is_met(goal: float) -> None:
    curve = typical()
    hit = curve.reach("psnr", goal)
    assert hit.psnr is not None
    assert abs(hit.psnr - goal) <= 0.05
    assert len(curve.qualities) <= 6


def test_bits_per_pixel_count_the_whole_file() -> None:
    hit = typical().reach("bpp", 0.5, pixels=393216)
    assert 0.98 * 0.5 <= 8 * len(hit.data) / 393216 <= 0.5
    assert hit.psnr is None


@pytest.mark.parametrize("unit", ["size", "bpp"])
def test_unreachable_sizes_name_the_range(unit: rate.Unit) -> None:
    pixels = 8 if unit == "bpp" else 1
    curve = Curve(lambda q: 3000 + 1000 * q, lambda q: q)
    with pytest.raises(AecError, match=r"cannot be reached: 3000 to (103000|1\.03e\+05) "):
        curve.reach(unit, 2999, pixels)
    assert len(curve.qualities) <= MAX_ENCODINGS


@pytest.mark.parametrize("unit", ["size", "bpp"])
def test_more_room_than_the_best_quality_needs(unit: rate.Unit) -> None:
    curve = typical()
    hit = curve.reach(unit, 10**6, pixels=8 if unit == "bpp" else 1)
    assert hit.quality == 100
    assert len(curve.qualities) <= 4


class SlowCoder:
    """A coder whose drafts are a little larger and worse than its encodings."""

    slow = True

    def __init__(self) -> None:
        self.slowly: list[float] = []
        self.last = Picture(np.zeros((1, 1), np.uint8))

    def encode(self, quality: float, *, draft: bool = False) -> bytes:
        if not draft:
            self.slowly.append(quality)
        self.last = Picture(np.full((1, 1), round(40 - 0.3 * quality) + draft, np.uint8))
        return bytes(round(3000 * math.exp(0.036 * quality) * (1.04 if draft else 1)))

    def decoded(self) -> Picture:
        return self.last


def test_a_slow_coder_is_asked_for_drafts_first() -> None:
    source, coder = Picture(np.zeros((1, 1), np.uint8)), SlowCoder()
    hit = rate.meet(Target("size", 30000), source, coder)
    assert 0.98 * 30000 <= len(hit.data) <= 30000
    assert len(coder.slowly) <= 3
    hit = rate.meet(Target("psnr", 25), source, coder)  # the curve is a stair: see SlowCoder
    assert hit.psnr is not None
    assert abs(hit.psnr - 25) < 0.5


def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score for tests, whether or not the package is there: 90 less what is lost, on average."""

    def score(a: Image.Image, b: Image.Image) -> float:
        assert a.mode == b.mode == "RGB"
        return 90 - float(np.abs(np.subtract(a, b, dtype=np.int16)).mean())

    monkeypatch.setattr(seen, "available", lambda: True)
    monkeypatch.setattr(seen, "score", score)


@pytest.mark.parametrize("goal", [55, 70.3, 79])
def test_a_score_is_met(goal: float, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch)
    coder = SlowCoder()
    coder.slow = False
    hit = rate.meet(Target("ssimulacra2", goal), Picture(np.zeros((1, 1), np.uint8)), coder)
    assert hit.psnr is None
    assert hit.ssimulacra2 == pytest.approx(goal, abs=0.5)  # it loses whole levels


def test_what_drafts_do_not_reach_encodings_may() -> None:
    source, coder = Picture(np.zeros((1, 1), np.uint8)), SlowCoder()
    best = rate.psnr(source, Picture(np.full((1, 1), 10, np.uint8)))
    hit = rate.meet(Target("psnr", best), source, coder)
    assert (hit.quality, hit.psnr) == (100, best)


def test_a_score_out_of_reach_names_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch)
    with pytest.raises(AecError, match=r"99 cannot be reached: 50.00 to 80.00 can"):
        rate.meet(Target("ssimulacra2", 99), Picture(np.zeros((1, 1), np.uint8)), SlowCoder())


def test_a_score_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "available", lambda: False)
    with pytest.raises(AecError, match="pip install ssimulacra2"):
        Target("ssimulacra2", 80)


def test_score_of_equal_and_of_small_pictures() -> None:
    pixels = np.arange(49, dtype=np.uint8).reshape(7, 7)
    assert rate.score(Picture(pixels), Picture(pixels)) == math.inf
    with pytest.raises(AecError, match="8 pixels a side"):
        rate.score(Picture(pixels), Picture(pixels + 1))


def test_score_is_that_of_the_package() -> None:
    pytest.importorskip("ssimulacra2")
    one = synthetic.picture("RGB", 64, 48)
    near = Picture(one.pixels // 2 * 2)
    far = Picture(one.pixels // 32 * 32)
    assert 100 > rate.score(one, near) > rate.score(one, far)


def test_one_target_at_a_time() -> None:
    assert rate.target_of(None, None, None) is None
    assert rate.target_of(None, 0.5, None) == Target("bpp", 0.5)
    with pytest.raises(AecError, match="size and psnr exclude each other"):
        rate.target_of(1000, None, 36)


@pytest.mark.parametrize("asked", [20.0, 45.0])
def test_unreachable_psnr_names_the_range(asked: float) -> None:
    with pytest.raises(AecError, match=r"cannot be reached: 27\.00 dB to 41\.00 dB can"):
        typical().reach("psnr", asked)


def test_a_picture_kept_exactly_is_not_taken_for_a_number() -> None:
    with pytest.raises(AecError, match="to lossless can"):
        Curve(lambda q: 100 + q, lambda q: math.inf if q > 50 else 40).reach("psnr", 30)


def test_where_sizes_jump_the_file_stays_below() -> None:
    curve = Curve(lambda q: 1000 if q < 61.23 else 2000, lambda q: q)
    hit = curve.reach("size", 1500)
    assert len(hit.data) == 1000
    assert len(curve.qualities) <= MAX_ENCODINGS


def test_a_size_that_is_the_same_at_every_quality() -> None:
    flat = Curve(lambda q: 40, lambda q: 30)
    assert len(flat.reach("size", 40).data) == 40
    with pytest.raises(AecError, match="40 to 40 bytes"):
        flat.reach("size", 39)


@pytest.mark.parametrize("size", [lambda q: 50.0 + q, lambda q: 10 + q * q, lambda q: 2 ** (q / 6)])
def test_curves_unlike_those_of_pictures(size: Callable[[float], float]) -> None:
    curve = Curve(size, lambda q: q)
    limit = int(size(37.0))
    assert 0.9 * limit <= len(curve.reach("size", limit).data) <= limit


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_targets_are_positive_numbers(value: float) -> None:
    with pytest.raises(AecError, match="above 0"):
        Target("psnr", value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("60000", 60000), ("60k", 60000), ("60K", 60000), ("1.5M", 1500000), ("60KiB", 61440),
     ("2MB", 2000000), (" 10 kb ", 10000), (".5k", 500)],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-5k", "60q", "0", "1e3", "60 k k", "nan", "0.2"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(AecError, match="is not a size"):
        parse_size(text)


def test_psnr_of_known_differences() -> None:
    grey = np.full((7, 5), 100, np.uint8)
    assert rate.psnr(Picture(grey), Picture(grey)) == math.inf
    assert rate.psnr(Picture(grey), Picture(grey + 1)) == pytest.approx(48.1308, abs=1e-4)
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert rate.psnr(Picture(black), Picture(white)) == pytest.approx(0)
    assert rate.psnr(Picture(white), Picture(black)) == pytest.approx(0)


def test_psnr_of_a_picture_compared_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    a, b = (Picture(generator.integers(0, 256, (50, 20, 3), np.uint8)) for _ in range(2))
    whole = rate.psnr(a, b)
    monkeypatch.setattr(distortion, "_BAND", 120)
    assert rate.psnr(a, b) == pytest.approx(whole)
