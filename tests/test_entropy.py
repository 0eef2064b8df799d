"""Symbols and bytes: round trips, the frozen tables as they are, and payloads nobody wrote."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_coder import Exhausted, RangeDecoder, ReferenceDecoder

from aecodec.entropy import PRECISION, SYMBOL_LIMIT, SymbolDecoder, SymbolEncoder, TableSet
from aecodec.errors import FormatError
from aecodec.model import open_model


def gaussian(radius: int, sigma: float, escape: bool) -> npt.NDArray[np.uint32]:
    """A table over -radius..radius, with an escape entry if asked for."""
    x = np.arange(-radius, radius + 1)
    weights = np.append(np.exp(-((x / sigma) ** 2) / 2), [1e-6] if escape else [])
    counts = np.floor(weights / weights.sum() * (2**PRECISION - len(weights))).astype(np.int64) + 1
    counts[radius] += 2**PRECISION - counts.sum()
    return counts.astype(np.uint32)


def table_set(*shapes: tuple[int, float, bool], skip_first: bool = True) -> TableSet:
    tables = [gaussian(*shape) for shape in shapes]
    sizes = np.array([len(table) for table in tables], np.int32)
    return TableSet(np.concatenate(tables), sizes, skip_first)


OPEN = table_set((1, 0.1, True), (2, 0.5, True), (6, 2.0, True), (90, 20.0, True))
CLOSED = table_set((15, 1.0, False), (15, 5.0, False), skip_first=False)


def encoded(*parts: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], TableSet]) -> bytes:
    coder = SymbolEncoder()
    for symbols, index, tables in parts:
        coder.put(symbols, index, tables)
    return coder.finish()


def elements(tables: TableSet, limit: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Lists of (table, symbol)."""
    first = 1 if tables.skip_first else 0
    values = st.integers(-4, 4) | st.integers(-limit, limit)
    pairs = st.tuples(st.integers(first, len(tables.sizes) - 1), values)
    if tables.skip_first:
        pairs |= st.just((0, 0))
    return st.lists(pairs, max_size=60)


def split(pairs: list[tuple[int, int]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    index, symbols = np.array(pairs, np.int64).reshape(-1, 2).T
    return symbols.astype(np.int32), index


@settings(max_examples=60, deadline=None)
@given(elements(CLOSED, 15), elements(OPEN, SYMBOL_LIMIT), elements(OPEN, 100))
def test_round_trip(
    first: list[tuple[int, int]], second: list[tuple[int, int]], third: list[tuple[int, int]]
) -> None:
    """What was put comes back, in the package's decoder and in the one made from the text."""
    sets = (CLOSED, OPEN, OPEN)
    parts = [(*split(p), t) for p, t in zip((first, second, third), sets, strict=True)]
    payload = encoded(*parts)
    assert payload == b"\0" or payload[-1] != 0
    for decoder in (SymbolDecoder(payload), ReferenceDecoder(payload)):
        for symbols, index, tables in parts:
            assert np.array_equal(decoder.get(index, tables), symbols)


@st.composite
def any_tables(draw: st.DrawFn) -> TableSet:
    """Open tables of any shape, the certain zero first; flat, steep and one-sided ones."""
    tables = []
    for size in draw(st.lists(st.sampled_from([2, 4, 6, 10]), min_size=2, max_size=4)):
        weights = draw(st.lists(st.sampled_from([0, 1, 9, 10**4, 10**7]), min_size=size,
                                max_size=size))  # fmt: skip
        total = sum(weights) or 1
        counts = [1 + weight * (2**PRECISION - size) // total for weight in weights]
        counts[draw(st.integers(0, size - 1))] += 2**PRECISION - sum(counts)
        tables.append(counts)
    sizes = np.array([len(table) for table in tables], np.int32)
    return TableSet(np.concatenate(tables).astype(np.uint32), sizes, True)


def decodes_to(payload: bytes, symbols: npt.NDArray[np.int32], index: npt.NDArray[np.int64],
               tables: TableSet) -> bool:  # fmt: skip
    """Whether the package's decoder gets these symbols; the one of the text must agree."""
    answers = []
    for decoder in (SymbolDecoder(payload), ReferenceDecoder(payload)):
        try:
            answers.append(np.array_equal(decoder.get(index, tables), symbols))
        except (FormatError, Exhausted):
            answers.append(False)
    assert answers[0] == answers[1]
    return answers[0]


def neighbours(payload: bytes) -> list[bytes]:
    """The two payloads of one byte less on either side of this one (one, at the very top)."""
    below, size = int.from_bytes(payload[:-1], "big"), len(payload) - 1
    return [n.to_bytes(size, "big") for n in (below, below + 1) if n < 256**size]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_payload_is_the_shortest(data: st.DataObject) -> None:
    """What decodes to given symbols is an interval: two neighbours speak for all shorter ones."""
    tables = data.draw(any_tables())
    symbols, index = split(data.draw(elements(tables, 100)))
    payload = encoded((symbols, index, tables))
    assert decodes_to(payload, symbols, index, tables)
    if len(payload) > 1:
        assert not any(decodes_to(one, symbols, index, tables) for one in neighbours(payload))
    assert len(payload) * 8 < tables.bits(symbols, index) + 16


def chase(target: bytes, count: int, seed: int) -> tuple[TableSet, npt.NDArray[np.int32]]:
    """Tables and symbols whose interval closes in on a payload from both sides.

    It is as narrow as there is before the coder takes a word (2^32), or narrower.
    """
    coder, tables, symbols, rng = RangeDecoder(target), [], [], np.random.default_rng(seed)
    for _ in range(count):
        unit = coder.width >> PRECISION
        slot = (coder.point - coder.lower) % 2**64 // unit
        size = min(-(-(2**32) // unit), 2**20) if rng.integers(2) else int(rng.integers(1, 4))
        below = min(max(slot - int(rng.integers(size)), 1), 2**PRECISION - size - 1)
        tables.append([below, size, 2**PRECISION - below - size])
        symbols.append(coder.entry(tables[-1]) - 1)
    frequencies = np.array(tables, np.uint32).ravel()
    return TableSet(frequencies, np.full(count, 3, np.int32), False), np.array(symbols, np.int32)


@pytest.mark.parametrize("target", ["80", "0100", "12345678", "123456780001"])
@pytest.mark.parametrize("last", [-1, 0, 1])
def test_carries_run_through_all_words(target: str, last: int) -> None:
    """Whether a word is 7fffffff or 80000000 may show as late as in the last symbol."""
    for seed in range(100):
        length = 1 + seed % 12
        tables, symbols = chase(bytes.fromhex(target), length, seed)
        symbols[-1] = last
        index = np.arange(length, dtype=np.int64)
        payload = encoded((symbols, index, tables))
        assert decodes_to(payload, symbols, index, tables)
        if len(payload) > 1:
            assert not any(decodes_to(one, symbols, index, tables) for one in neighbours(payload))
        assert len(payload) * 8 < tables.bits(symbols, index) + 16


def test_decoder_reads_zeros_beyond_the_end() -> None:
    """Zeros that were dropped, or that somebody added, make no difference."""
    symbols, index = np.full(40, -1, np.int32), np.ones(40, np.int64)
    tables = TableSet(np.full(8, 2**22, np.uint32), np.array([4, 4], np.int32), True)
    assert encoded((symbols, index, tables)) == b"\0"  # ten bytes in full
    for zeros in range(1, 20):
        assert decodes_to(bytes(zeros), symbols, index, tables)


def test_nothing_to_code() -> None:
    none = np.zeros(0, np.int32), np.zeros(0, np.int64), OPEN
    skipped = np.zeros(9, np.int32), np.zeros(9, np.int64), OPEN
    assert encoded(none, skipped) == b"\0"
    assert not SymbolDecoder(b"\0").get(skipped[1], OPEN).any()


def test_payload_bytes_are_these() -> None:
    """Literal bytes: a change here is a change of the format."""
    even = np.full(4, 2**22, np.uint32)  # -1, 0, 1 and the escape
    steep = np.array([1, 2**10, 2**24 - 3 * 2**10 - 2**8 - 1, 2**10, 2**8, 2**10], np.uint32)
    tables = TableSet(np.concatenate([even, even, steep]), np.array([4, 4, 6], np.int32), True)
    closed = TableSet(np.array([5, 2**24 - 6, 1], np.uint32), np.array([3], np.int32), False)
    index = np.array([2, 1, 2, 0, 1, 1, 2, 2], np.int64)
    symbols = np.array([-17, 1, 2, 0, 40, -1, -2, -32000], np.int32)
    z = np.array([0, -1, 1], np.int32), np.zeros(3, np.int64), closed
    payload = encoded(z, (symbols, index, tables))
    assert payload.hex() == "000009fffefe83fb4bfe7000504ffeb05f3fd9785c"
    decoder = ReferenceDecoder(payload)
    assert np.array_equal(decoder.get(z[1], closed), z[0])
    assert np.array_equal(decoder.get(index, tables), symbols)


def test_skipped_elements_cost_nothing_and_are_zero() -> None:
    index = np.array([0, 2, 0, 0, 2], np.int64)
    symbols = np.array([0, 3, 0, 0, -2], np.int32)
    payload = encoded((symbols, index, OPEN))
    assert payload == encoded((symbols[index == 2], index[index == 2], OPEN))
    assert np.array_equal(SymbolDecoder(payload).get(index, OPEN), symbols)


def test_limit_of_symbols() -> None:
    index = np.array([1], np.int64)
    for value in (SYMBOL_LIMIT, -SYMBOL_LIMIT):
        symbols = np.array([value], np.int32)
        assert SymbolDecoder(encoded((symbols, index, OPEN))).get(index, OPEN)[0] == value
    with pytest.raises(OverflowError):
        encoded((np.array([SYMBOL_LIMIT + 1], np.int32), index, OPEN))


def test_every_entry_of_the_frozen_tables_is_used_as_it_is() -> None:
    """The coder's intervals are the tables' integers, for all tables of the default model."""
    model, rng = open_model(threads=1), np.random.default_rng(0)
    for tables in (model.y_tables, model.hyper.tables):
        assert np.all(tables.frequencies > 0)
        sums = np.add.reduceat(tables.frequencies.astype(np.int64), tables.starts[:-1])
        assert np.all(sums == 2**PRECISION)
        index = np.arange(1 if tables.skip_first else 0, len(tables.sizes)).repeat(3)
        radius = (tables.sizes[index] - 1) // 2
        symbols = rng.integers(-radius, radius + 1).astype(np.int32)
        payload = encoded((symbols, index, tables))
        assert np.array_equal(ReferenceDecoder(payload).get(index, tables), symbols)


@pytest.mark.parametrize("payload", [b"\xff" * 64, b"\xff" * 8 + b"\0" * 4 + b"\1"])
def test_impossible_payloads(payload: bytes) -> None:
    """The very top of the range belongs to no symbol."""
    index = np.ones(40, np.int64)
    with pytest.raises(FormatError, match="could have written"):
        SymbolDecoder(payload).get(index, OPEN)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(1, 3))
def test_arbitrary_payloads_give_symbols_or_format_error(payload: bytes, table: int) -> None:
    index = np.full(50, table, np.int64)
    try:
        symbols = SymbolDecoder(payload).get(index, OPEN)
    except FormatError:
        return
    assert np.abs(symbols).max() <= 2**15 + OPEN.radius(table)


def test_estimate_is_close_to_the_payload() -> None:
    rng = np.random.default_rng(1)
    index = rng.integers(0, 4, 30000)
    sigma = np.array([0, 0.5, 2.0, 30.0])[index]
    symbols = np.rint(rng.normal(0, 1, index.shape) * sigma).astype(np.int32)
    estimate = OPEN.bits(symbols, index)
    assert len(encoded((symbols, index, OPEN))) * 8 == pytest.approx(estimate, rel=0.01)
