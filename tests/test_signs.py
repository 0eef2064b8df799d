"""Magnitudes and signs of a step: what is written is read, in fewer bits than signs would take."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from aecodec import signs
from aecodec.entropy import SYMBOL_LIMIT, Groups, SymbolDecoder, SymbolEncoder
from aecodec.errors import FormatError
from aecodec.hiding import NEVER
from aecodec.model import Model, open_model
from aecodec.quantise import STEP_WORTH, quantise

Int32 = npt.NDArray[np.int32]
Index = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> Model:
    found = open_model()
    assert found.rates is not None
    return found


def step(model: Model, count: int, seed: int = 0) -> tuple[Int32, npt.NDArray[np.float32], Index]:
    """Symbols, residuals and tables of a step as pictures have them."""
    rng = np.random.default_rng(seed)
    index = np.minimum(rng.exponential(9, count), len(model.y_tables.sizes) - 1).astype(np.uint8)
    sigma = 0.26 * np.exp(0.123 * index)
    r = rng.laplace(0, sigma / np.sqrt(2)).astype(np.float32)
    return quantise(r, index, model.shifts, 0.6), r, index


def coded(model: Model, symbols: Int32, index: Index) -> bytes:
    coder = SymbolEncoder()
    signs.write(coder, symbols, Groups(index, model.y_tables), model)
    return coder.finish()


def hide(model: Model, symbols: Int32, r: npt.NDArray[np.float32], index: Index) -> Int32:
    groups = Groups(index, model.y_tables)
    return signs.hidden(symbols, r, index, groups, signs.Weights(0.6, STEP_WORTH), model)


def bits(model: Model, symbols: Int32, index: Index) -> float:
    return signs.bits(symbols, index, Groups(index, model.y_tables), model)


def test_models_without_rates_code_signs_with_magnitudes(model: Model) -> None:
    symbols, _, index = step(model, 5000)
    without = dataclasses.replace(model, rates=None)
    data = coded(without, symbols, index)
    assert np.array_equal(SymbolDecoder(data).get(index, model.y_tables), symbols)
    assert np.array_equal(signs.read(SymbolDecoder(data), index, without), symbols)


@pytest.mark.parametrize("count", [0, 1, 40, 3000, 100_000])
def test_symbols_come_back(model: Model, count: int) -> None:
    symbols, r, index = step(model, count)
    hidden = hide(model, symbols, r, index)
    assert np.abs(hidden - symbols).max(initial=0) <= 1
    data = coded(model, hidden, index)
    assert np.array_equal(signs.read(SymbolDecoder(data), index, model), hidden)
    assert 8 * len(data) == pytest.approx(bits(model, hidden, index), abs=64, rel=2e-4)


def test_hidden_signs_cost_nothing(model: Model) -> None:
    symbols, r, index = step(model, 60_000)
    without = dataclasses.replace(model, rates=None)
    hidden = hide(model, symbols, r, index)

    def cost(chosen: Int32, model: Model) -> float:
        return bits(model, chosen, index) + STEP_WORTH * float(np.square(r - chosen).sum())

    assert len(coded(model, hidden, index)) < 0.96 * len(coded(without, symbols, index))
    assert cost(hidden, model) < 0.985 * cost(symbols, without)
    assert hide(without, symbols, r, index) is symbols


def test_symbols_whose_signs_nobody_hid_are_not_written(model: Model) -> None:
    symbols, _, index = step(model, 5000)
    with pytest.raises(ValueError, match="hidden"):
        coded(model, symbols, index)


def test_escapes(model: Model) -> None:
    symbols, r, index = step(model, 4000)
    rng = np.random.default_rng(3)
    far = rng.integers(0, 4000, 30)
    far = far[index[far] > 0]
    r[far] = rng.choice([-1, 1], len(far)) * rng.uniform(100, SYMBOL_LIMIT, len(far))
    symbols = quantise(r, index, model.shifts, 0.6)
    hidden = hide(model, symbols, r, index)
    assert np.abs(hidden).max() <= SYMBOL_LIMIT
    data = coded(model, hidden, index)
    assert np.array_equal(signs.read(SymbolDecoder(data), index, model), hidden)


def test_a_negative_magnitude_is_refused(model: Model) -> None:
    index = np.array([5], np.uint8)
    tables = model.y_tables.magnitudes
    coder = SymbolEncoder()
    coder.put_grouped(np.array([-300], np.int32), Groups(index, tables), tables)
    with pytest.raises(FormatError, match="payload"):
        signs.read(SymbolDecoder(coder.finish()), index, model)


def test_costs_are_those_of_the_formula(model: Model) -> None:
    tables = model.y_tables
    for table, size in ((20, 0), (20, 1), (30, 3)):
        bits = tables.by_size[table]
        # Large scales are nearly flat: no magnitude is taken to be cheaper than a smaller one.
        dearer = [max(bits[k] - bits[k - 1], 0) for k in (size, size + 1)]
        over = np.array([0.1], np.float32)
        up, down = signs._costs(
            over, np.array([size], np.int32), np.array([table], np.uint8),
            signs.Weights(1.0, STEP_WORTH), model,
        )  # fmt: skip
        assert up[0] == pytest.approx(STEP_WORTH * 0.8 + dearer[1], abs=0.02)
        if size == 0:
            assert down[0] == NEVER
        else:
            assert down[0] == pytest.approx(STEP_WORTH * 1.2 - dearer[0], abs=0.02)
