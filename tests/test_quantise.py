"""Rate-distortion-optimised quantisation."""

from __future__ import annotations

import numpy as np
import pytest

from aecodec.quantise import DEEPEST, quantise, shifts, zero_reach


def gaussian_table(sigma: float, radius: int) -> np.ndarray:
    k = np.arange(-radius, radius + 1)
    p = np.exp(-0.5 * (k / sigma) ** 2)
    counts = np.floor(p / p.sum() * (2**24 - len(p) - 100)) + 1
    return np.append(counts, 100).astype(np.uint32)


@pytest.fixture
def table() -> np.ndarray:
    flat = [gaussian_table(s, r) for s, r in ((0.2, 3), (0.5, 4), (8.0, 40))]
    starts = np.concatenate([[0], np.cumsum([len(f) for f in flat])])
    return shifts(np.concatenate(flat), starts)


def test_rare_symbols_need_a_larger_residual(table: np.ndarray) -> None:
    r = np.full(3, 0.6, np.float32)
    assert quantise(r, np.array([0, 1, 2], np.uint8), table).tolist() == [0, 0, 1]
    assert table[1, 1] > table[2, 1] > 0


def test_without_strength_it_is_rounding() -> None:
    flat = gaussian_table(1.0, 6)
    table = shifts(np.tile(flat, 2), np.array([0, 1, 2]) * len(flat))
    r = np.linspace(-5, 5, 203).astype(np.float32)
    symbols = quantise(r, np.ones(len(r), np.uint8), table, 0.0)
    assert np.array_equal(symbols, np.rint(r).astype(np.int32))


def test_it_is_odd_and_moves_towards_zero_by_at_most_one(table: np.ndarray) -> None:
    r = np.random.default_rng(0).normal(0, 30, 5000).astype(np.float32)
    index = np.random.default_rng(1).integers(1, 3, 5000).astype(np.uint8)
    symbols = quantise(r, index, table)
    assert np.array_equal(symbols, -quantise(-r, index, table))
    step = np.abs(np.rint(r)) - np.abs(symbols)
    assert set(np.unique(step)) <= {0.0, 1.0}
    assert (step[np.abs(r) > DEEPEST + 1] == 0).all()


def test_each_element_may_have_its_own_strength(table: np.ndarray) -> None:
    r, index = np.full(3, 0.6, np.float32), np.full(3, 1, np.uint8)
    strength = np.array([0.0, 0.1, 5.0], np.float32)
    assert quantise(r, index, table, strength).tolist() == [1, 1, 0]


def test_the_certain_zero_stays_zero(table: np.ndarray) -> None:
    assert quantise(np.array([7.0], np.float32), np.array([0], np.uint8), table).tolist() == [0]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 9.0])
def test_zeros_reach_as_far_as_they_are_chosen(table: np.ndarray, strength: float) -> None:
    r = np.linspace(-1.5, 1.5, 301).astype(np.float32)
    for index in (1, 2):
        of = np.full(r.shape, index, np.uint8)
        reach = zero_reach(of, table, strength)
        zero = quantise(r, of, table, strength) == 0
        assert zero[np.abs(r) < reach - 1e-3].all()
        assert not zero[np.abs(r) > reach + 1e-3].any()
    assert zero_reach(np.zeros(1, np.uint8), table) == np.inf  # a certain zero
