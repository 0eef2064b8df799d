"""Signs hidden in parities: what is hidden is said, at the least cost, as the format says."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aecodec import hiding
from aecodec.hiding import NEVER, PATTERNS, RATE_UNITS, ROWS, Layout, hide, layout

TABLES = 12
RATES = np.array([0, 0, 0, 10, 30, 60, 90, 120, 150, 180, 200, 220])


def elements(
    seed: int, most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Counts of each table, and magnitudes and signs of the elements in order of tables."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most + 1, TABLES)
    counts[0] = 0
    width = np.repeat(np.arange(TABLES), counts) / 6
    sizes = rng.exponential(width).astype(np.int32)
    return counts, sizes, rng.random(len(sizes)) < 0.5


def by_the_book(
    counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32], negative: npt.NDArray[np.bool_]
) -> dict[int, bool]:
    """Hidden signs by element, read as docs/format.md tells it, one bit at a time.

    negative: of which those that are hidden are not looked at.
    """
    tables = np.repeat(np.arange(len(counts)), counts).tolist()
    first = next(t for t in range(len(counts)) if RATES[t] > 0)
    n = sum(table >= first for table in tables)
    lanes = max(1, n // ROWS)
    rows = n // lanes
    start = len(tables) - rows * lanes
    sums = list(itertools.accumulate(int(RATES[tables[start + i * lanes]]) for i in range(rows)))
    groups = (sums[-1] + 512) // 1024 if rows else 0
    found = {}
    for lane in range(lanes if groups else 0):
        register, ended, spot, others = 0, 0, None, 0
        for row in range(rows):
            at = start + row * lanes + lane
            if sizes[at] and spot is None:
                spot = at
            elif sizes[at]:
                others ^= int(negative[at])
            if sizes[at] % 2:
                register ^= PATTERNS[row % len(PATTERNS)]
            if sums[row] * groups // sums[-1] > ended:
                if spot is not None:
                    found[spot] = bool(register & 1 ^ others)
                register, ended, spot, others = register >> 1, ended + 1, None, 0
        assert ended == groups
    return found


def read(
    counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32], negative: npt.NDArray[np.bool_]
) -> dict[int, bool]:
    where = layout(counts, RATES)
    if where is None:
        return {}
    start = len(sizes) - where.taking
    spots = hiding.unspelt(where, sizes[start:])
    others = negative[start:] & (sizes[start:] != 0)
    others[spots] = False
    found = hiding.signs(where, sizes[start:], others, spots)
    return dict(zip((spots + start).tolist(), found.tolist(), strict=True))


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 3, 20, 150]))
def test_signs_are_read_as_the_format_says(seed: int, most: int) -> None:
    counts, sizes, negative = elements(seed, most)
    assert read(counts, sizes, negative) == by_the_book(counts, sizes, negative)


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 20, 150]))
def test_what_is_hidden_is_found(seed: int, most: int) -> None:
    counts, sizes, negative = elements(seed, most)
    where = layout(counts, RATES)
    if where is None:
        return
    start = len(sizes) - where.taking
    rng = np.random.default_rng(seed + 1)
    up, down = rng.uniform(-3, 20, (2, where.taking)).astype(np.float32)
    down[sizes[start:] == 0] = NEVER
    changed = sizes.copy()
    changed[start:] = hide(where, sizes[start:], negative[start:], up, down)
    assert changed.min() >= 0
    assert np.abs(changed - sizes).max() <= 1
    found = read(counts, changed, negative)
    assert all(negative[spot] == sign for spot, sign in found.items())


def bits(where: Layout, change: npt.NDArray[np.int8], turns: npt.NDArray[np.uint8]) -> list[int]:
    """What changes of one lane turn in each group: its bit, or what is wanted of it."""
    plain = hiding._syndrome(where, change.astype(np.int32))
    return (plain ^ hiding._by_group(where, change.astype(np.uint8) & turns))[:, 0].tolist()


@pytest.mark.parametrize("seed", range(6))
def test_changes_are_the_cheapest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    where = Layout(1, np.array([2, 5, 7, 11]), np.resize(np.array(PATTERNS, np.uint8), 12))
    cost = (rng.integers(-40, 200, (12, 1)) / 16).astype(np.float32)
    turns = rng.integers(0, 2, (12, 1)).astype(np.uint8)
    turns[where.firsts] = 0  # there is a way
    wanted = rng.integers(0, 3, (4, 1)).astype(np.uint8)

    def right(change: npt.NDArray[np.int8]) -> bool:
        found = bits(where, change, turns)
        return all(w in (2, bit) for w, bit in zip(wanted[:, 0].tolist(), found, strict=True))

    every = (np.array(c, np.int8)[:, None] for c in itertools.product((0, 1), repeat=12))
    least = min(float((cost * change).sum()) for change in every if right(change))
    change = hiding._cheapest(where, cost, turns, wanted)
    assert right(change)
    assert float((cost * change).sum()) == least


def test_hiding_costs_less_than_signs() -> None:
    rng = np.random.default_rng(5)
    counts = np.zeros(TABLES, np.int64)
    counts[6:] = 3000
    sizes = rng.exponential(np.repeat(np.arange(TABLES), counts) / 6).astype(np.int32)
    where = layout(counts, RATES)
    assert where is not None
    assert len(where.lasts) == pytest.approx(RATES[6:].mean() * where.rows / RATE_UNITS, abs=1)
    over = rng.uniform(-0.5, 0.5, len(sizes)).astype(np.float32)
    up, down = 18 * (0.5 - over), 18 * (0.5 + over)
    down[sizes == 0] = NEVER
    sizes, up, down = (part[-where.taking :] for part in (sizes, up, down))
    changed = hide(where, sizes, rng.random(where.taking) < 0.5, up, down)
    spent = up[changed > sizes].sum() + down[changed < sizes].sum()
    signs = len(hiding.unspelt(where, changed))
    assert 0.12 * where.taking < signs
    assert spent < 0.6 * signs


def test_nothing_to_hide_in() -> None:
    assert layout(np.zeros(TABLES, np.int64), RATES) is None
    assert layout(np.eye(TABLES, dtype=np.int64)[2] * 1000, RATES) is None
    assert layout(np.full(TABLES, 100), np.zeros(TABLES, np.int64)) is None
