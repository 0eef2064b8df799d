"""Random pictures there and back, and a short run of the fuzzer (tools/fuzz.py does long ones)."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aecodec import codec
from aecodec.picture import from_array

ROOT = Path(__file__).resolve().parent.parent


def load_fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "tools" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 80), st.integers(1, 80), st.integers(1, 4)),
    st.integers(0, 10000),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_any_picture_round_trips(
    shape: tuple[int, int, int], quality: int, seed: int, noisy: bool
) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, shape if noisy else (1, 1, shape[2]))
    source = from_array(np.broadcast_to(levels, shape).astype(np.uint8))
    data = codec.encode_picture(source, quality / 100)
    back = codec.decode_file(data)
    assert back.pixels.shape == source.pixels.shape
    assert (back.alpha is None) == (source.alpha is None)
    if source.alpha is not None and back.alpha is not None:
        assert np.array_equal(back.alpha, source.alpha)


@pytest.mark.parametrize("seed", [1, 2])
def test_short_run(
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where a crash would leave its input
    arguments = ["fuzz.py", "--container", "2000", "--full", "60", "--seed", str(seed)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert load_fuzzer().main() == 0
    said = capsys.readouterr().out
    assert "container: 2000 inputs" in said
    assert "full decoding: 60 inputs" in said
    assert list(tmp_path.iterdir()) == []


def test_resealed_mutants_pass_the_checksums() -> None:
    fuzzer = load_fuzzer()
    for data in fuzzer.seeds():
        assert fuzzer.resealed(data) == data
        mutant = bytearray(data)
        mutant[-5] ^= 1
        kinds = {fuzzer.rebuilt(data, random.Random(seed))[:4] for seed in range(3)}
        assert kinds == {data[:4]}
        fuzzer.read_container(fuzzer.resealed(bytes(mutant)))
