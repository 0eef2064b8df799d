"""Symbols and bytes: round trips, the frozen tables as they are, and payloads nobody wrote."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_coder import ReferenceDecoder

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
    assert payload.hex() == "ff090000fb83fefe0070fe4bb0fe4f5078d93f5f0005c65b"
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
    for tables in (model.y_tables, model.z_tables):
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
