"""Levels of effort: every one decodes, more of it never costs more, wrong ones are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

import aecodec
from aecodec import codec, effort, picture, rate
from aecodec.cost import Cost
from aecodec.errors import AecError
from aecodec.model import open_model
from aecodec.search import choose
from aecodec.watch import Clock, Watch
from aecodec.weights import id_of
from aecodec.window import Window, cut

LEVELS = list(effort.LEVELS)


def window(mode: str, width: int, height: int, name: str = "") -> Window:
    """A whole picture of at most 128 x 128 pixels as one window, for a model."""
    return whole(synthetic.picture(mode, width, height).pixels, 128, name)


HERE = Path(__file__).parent
PHOTOGRAPHS = (
    HERE / "data" / "crop.png",
    HERE.parent / "benchmarks" / "regression" / "kodim05-crop.png",
)


def whole(pixels: np.ndarray, side: int, name: str) -> Window:
    """A picture of at most side x side pixels as one window, for a model."""
    padded = cut(pixels, (0, 0, side, side))
    u = open_model(id_of(name), threads=1).networks.analysis(padded, 5000)
    height, width = pixels.shape[:2]
    return Window(padded, u, slice(0, side // 16), slice(0, side // 16), height, width)


@pytest.mark.parametrize(("level", "mode"), [*((n, "RGBA") for n in LEVELS), (4, "L"), (7, "L")])
def test_every_level_is_read_by_the_ordinary_decoder(level: int, mode: str) -> None:
    source = synthetic.picture(mode, 75, 66)
    encoder = codec.Encoder(source, effort=level, threads=1, time_limit=1 if level > 6 else 0)
    data = encoder.encode(40)
    back = codec.decode_file(data)
    assert encoder.verify(data) == rate.psnr(source, back)
    assert np.array_equal(back.pixels, encoder.decoded().pixels)
    assert np.abs(back.pixels.astype(int) - source.pixels).mean() < 20


@pytest.mark.parametrize("level", [n for n in LEVELS if n < 9])
def test_threads_do_not_change_the_bytes(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 256)
    source = synthetic.picture("RGB", 150, 70)
    one, three = (codec.encode_picture(source, 40, effort=level, threads=n) for n in (1, 3))
    assert one == three


@pytest.mark.parametrize("name", ["default", "small"])
@pytest.mark.parametrize(("grey", "mode"), [(False, "RGB"), (True, "L")])
def test_more_effort_never_costs_more(grey: bool, mode: str, name: str) -> None:
    seen = window(mode, 120, 101, name)
    cost, costs = Cost(open_model(id_of(name), threads=1), 3000, grey), []
    for number in (n for n in LEVELS if 3 <= n <= 8):
        level = effort.LEVELS[number]
        coded = choose(cost.model, seen, cost.quality, grey, level, Clock())
        costs.append(cost.total(seen, coded, cost.decoded(seen, coded.y_hat)))
    assert costs == sorted(costs, reverse=True)
    assert grey or costs[-1] < costs[0]


def test_no_level_needs_pytorch() -> None:
    program = (
        "import sys, numpy, aecodec\n"
        "aecodec.encode(numpy.zeros((20, 30, 3), numpy.uint8), 40, effort=9)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("level", [4, 7])
def test_tiles(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 256)
    source = synthetic.picture("RGB", 150, 140)
    threads, limit = (1, 1.0) if level > 6 else (2, 0.0)
    encoder = codec.Encoder(source, effort=level, threads=threads, time_limit=limit)
    data = encoder.encode(50)
    assert np.array_equal(codec.decode_file(data).pixels, encoder.decoded().pixels)


def test_the_analysis_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    networks, calls = type(open_model().networks), []
    analysis = networks.analysis
    monkeypatch.setattr(
        networks, "analysis", lambda *arguments: (calls.append(1), analysis(*arguments))[1]
    )
    encoder = codec.Encoder(synthetic.picture("RGB", 64, 64), effort=2)
    assert encoder.encode(30) != encoder.encode(60)
    assert len(calls) == 1
    monkeypatch.setattr(networks, "analysis_follows_quality", True)
    fresh = codec.Encoder(synthetic.picture("RGB", 64, 64), effort=2)
    assert fresh.encode(30) == codec.encode_picture(synthetic.picture("RGB", 64, 64), 30, effort=2)
    fresh.encode(60)
    assert len(calls) == 4


@pytest.mark.parametrize("wrong", [0, 10, -1, True, 2.5, "3"])
def test_wrong_levels(wrong: Any) -> None:
    if wrong == "3":
        assert effort.level(wrong).number == 3
        return
    with pytest.raises(AecError, match="whole number from 1 to 9"):
        effort.level(wrong)


def test_the_environment_gives_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AECODEC_EFFORT", "5")
    assert effort.level().number == 5
    assert effort.level(2).number == 2
    monkeypatch.setenv("AECODEC_EFFORT", "fast")
    with pytest.raises(AecError, match="effort fast is not"):
        effort.level()


def test_a_limit_of_time_ends_a_search_with_a_file() -> None:
    source, seen = synthetic.picture("RGB", 64, 64), list[float]()
    encoder = codec.Encoder(source, effort=9, threads=1, time_limit=1e-3, report=seen.append)
    encoder.verify(encoder.encode(50))
    assert len(seen) < 10
    assert seen[-1] == 1
    with pytest.raises(AecError, match="time limit"):
        codec.Encoder(source, time_limit=-1)


def test_the_python_functions(tmp_path: Path) -> None:
    source = picture.to_image(synthetic.picture("RGB", 90, 70))
    data = aecodec.encode(source, 80, effort=5)
    assert data == codec.encode_picture(picture.from_image(source), 80, effort=5)
    assert data != aecodec.encode(source, 80)  # passes may find nothing better, but do here
    for number in (2, 4):
        data = aecodec.encode(source, size=1500, effort=number)
        assert 0.98 * 1500 <= len(data) <= 1500
        source.save(tmp_path / "a.png")
        aecodec.compress(tmp_path / "a.png", tmp_path / "a.aec", effort=number, psnr=34)
        back = picture.from_image(aecodec.decode((tmp_path / "a.aec").read_bytes()))
        assert abs(rate.psnr(picture.from_image(source), back) - 34) <= 0.05
    for wrong in ({"effort": 0}, {"effort": 10}, {"effort": "x"}, {"size": 900, "psnr": 30}):
        with pytest.raises(AecError):
            aecodec.encode(source, **wrong)


def test_a_limit_of_time_is_shared_and_reported() -> None:
    seen: list[float] = []
    watch = Watch(2, 1, 1e-9, seen.append)
    for _ in range(2):
        with watch.tile() as clock:
            assert clock.out()
            clock.at(0.5)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    with Watch(1, 1).tile() as clock:
        assert not clock.out()


@pytest.mark.parametrize("name", ["default", "small"])
@pytest.mark.parametrize("quality", [1000, 5000, 9000])
def test_a_look_back_saves_and_a_second_one_again(name: str, quality: int) -> None:
    model = open_model(id_of(name), threads=1)
    costs = [0.0, 0.0, 0.0]
    for (
        file
    ) in PHOTOGRAPHS:  # a calm and a busy one: of the calm one a second look may find nothing
        seen = whole(picture.load(file).pixels[:192, :192], 192, name)
        cost, each = Cost(model, quality, grey=False), []
        for number in (2, 3, 4):
            coded = choose(model, seen, quality, False, effort.LEVELS[number], Clock())
            each.append(cost.total(seen, coded, cost.decoded(seen, coded.y_hat)))
        assert each[2] <= each[1]
        costs = [before + more for before, more in zip(costs, each, strict=True)]
    assert costs[1] < 0.995 * costs[0]
    assert costs[2] < costs[1]
