"""Integer symbols <-> bytes. The only module that knows the range coder (constriction).

A `TableSet` holds frozen integer frequency tables, each summing to 2^24 (constriction's
precision), which the coder takes as they are. Symbols come as arrays with the index of the table
each one is coded with; they are grouped by table, so the coder is called once per table and
not once per symbol. Table index 0 of an open set is the "certain zero": nothing is coded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from aecodec.errors import FormatError

Ints = npt.NDArray[np.integer[Any]]
PRECISION = 24  # bits; every table sums to 2^24
ESCAPE_BITS = 16  # a value outside its table is coded as an escape and these raw bits
SYMBOL_LIMIT = 32000  # |symbol| never exceeds this, so 16-bit integers hold it

_STATE = 1 << 64  # the coder's interval is kept modulo this
_LAST_WORD = (1 << 32) - 1  # what the coder adds to the lower end to make its last word
_ESCAPE = constriction.stream.model.Uniform(1 << ESCAPE_BITS)


@dataclass(frozen=True)
class TableSet:
    """Frozen frequency tables.

    frequencies: all tables one after the other; sizes (T,): entries of each. Table t codes
    the values -radius..radius with radius = sizes // 2 if it is closed (odd size) or
    (sizes - 1) // 2 if its last entry is the escape (even size). `skip_first` marks sets
    whose table 0 codes nothing and stands for the value 0.
    """

    frequencies: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.int32]
    skip_first: bool

    @functools.cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(T + 1,) offsets of the tables in `frequencies`."""
        return np.concatenate([[0], np.cumsum(self.sizes.astype(np.int64))])

    @functools.cached_property
    def radii(self) -> npt.NDArray[np.int32]:
        """(T,) `radius` of every table, 0 for the certain zero."""
        radii = (self.sizes.astype(np.int32) - 1) // 2
        if self.skip_first:
            radii[0] = 0
        return radii

    @functools.cached_property
    def _models(self) -> dict[int, object]:
        return {}

    @functools.cached_property
    def open(self) -> npt.NDArray[np.bool_]:
        """(T,) whether a table has an escape entry; the certain zero has none."""
        found: npt.NDArray[np.bool_] = self.sizes % 2 == 0
        if self.skip_first:
            found[0] = False
        return found

    def radius(self, table: int) -> int:
        """Largest absolute value that table can code without an escape."""
        return int(self.radii[table])

    def model(self, table: int) -> object:
        """The coder's model of a table, built on first use (safe to race: equal values)."""
        model = self._models.get(table)
        if model is None:
            counts = self.frequencies[self.starts[table] : self.starts[table + 1]]
            # The coder gives every entry a weight of 1 and spreads the other 2^24 - n in
            # proportion to these numbers. They add up to just that, so its factor is exactly
            # 1 and its frequencies are exactly the table's, on every machine.
            p = counts.astype(np.float64) - 1.0
            model = constriction.stream.model.Categorical(p, perfect=False)
            self._models[table] = model
        return model

    @functools.cached_property
    def by_size(self) -> npt.NDArray[np.float32]:
        """(T,K): bits of |symbol| = 0, 1, ... by every table, escapes included."""
        bits = np.zeros((len(self.sizes), int(self.radii.max()) + 2), np.float32)
        for table in range(int(self.skip_first), len(bits)):
            counts = self.frequencies[self.starts[table] : self.starts[table + 1]]
            own = PRECISION - np.log2(counts.astype(np.float64))
            radius = self.radius(table)
            bits[table, : radius + 1] = own[radius : 2 * radius + 1]
            bits[table, radius + 1 :] = own[-1] + ESCAPE_BITS
        return bits

    def bits(self, symbols: Ints, index: Ints) -> float:
        """Ideal code length in bits of symbols (n,) coded with tables index (n,)."""
        total = 0.0
        for table in np.unique(index):
            if table == 0 and self.skip_first:
                continue
            radius = self.radius(int(table))
            group = symbols[index == table].astype(np.int64)
            outside = np.abs(group) > radius
            entry = np.where(outside, 2 * radius + 1, group + radius) + self.starts[table]
            total += float((PRECISION - np.log2(self.frequencies[entry])).sum())
            total += ESCAPE_BITS * int(outside.sum())
        return total


class _Groups:
    """Elements that are coded, in order of their tables: certain zeros, most of all, are left out.

    order (n,): where they stand. counts (T,): how many there are of every table. coded: table,
    start and stop in `order` of each table that has any.
    """

    def __init__(self, index: Ints, tables: TableSet) -> None:
        narrow = index.astype(np.uint8 if len(tables.sizes) <= 256 else np.uint16, copy=False)
        at = np.flatnonzero(narrow != 0) if tables.skip_first else np.arange(len(narrow))
        narrow = narrow[at]
        self.order = at[np.argsort(narrow, kind="stable")]  # a radix sort for such types
        self.counts = np.bincount(narrow, minlength=len(tables.sizes))
        stops = np.cumsum(self.counts)
        self.coded = [
            (int(table), int(stops[table] - self.counts[table]), int(stops[table]))
            for table in np.flatnonzero(self.counts)
        ]


class SymbolEncoder:
    """Collects symbols and gives one byte string."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def put(self, symbols: Ints, index: Ints, tables: TableSet) -> None:
        """Code symbols (n,) with tables index (n,).

        Escaped values follow after all groups. Raises OverflowError beyond SYMBOL_LIMIT.
        """
        if symbols.size and int(np.abs(symbols).max()) > SYMBOL_LIMIT:
            raise OverflowError("symbol out of range")
        groups = _Groups(index, tables)
        values = symbols[groups.order].astype(np.int32)
        radius = np.repeat(tables.radii, groups.counts)
        outside = np.flatnonzero((np.abs(values) > radius) & np.repeat(tables.open, groups.counts))
        far, values = values[outside], values + radius
        values[outside] = 2 * radius[outside] + 1
        for table, start, stop in groups.coded:
            self._coder.encode(values[start:stop], tables.model(table))
        if outside.size:
            beyond = (np.abs(far) - radius[outside] - 1) * 2 + (far < 0)
            self._coder.encode(beyond.astype(np.int32), _ESCAPE)

    def finish(self) -> bytes:
        """The payload: the shortest bytes that, with zeros behind them, decode to the symbols."""
        count, (lower, width) = self._coder.pos()
        words = self._coder.get_compressed()
        # The coder has ended its words as if anything could follow. Take what it was sure of
        # before, undo the carry of its ending, and end with as few bytes as the interval allows.
        carried = lower + _LAST_WORD >= _STATE
        before = int.from_bytes(words[:count].astype(">u4").tobytes(), "big") - carried
        point = next(p for p in _roundings(lower) if p < lower + width)
        value = before * _STATE + point
        return value.to_bytes(4 * count + 8, "big").rstrip(b"\0") or b"\0"


def _roundings(lower: int) -> Iterator[int]:
    """A 64-bit number rounded up to 0 to 4 bytes, the rest being zeros; 2^64 is a carry.

    The last one is less than 2^32 above it: inside every interval of the coder.
    """
    for unit in (1 << bits for bits in (64, 56, 48, 40, 32)):
        yield -(-lower // unit) * unit


class SymbolDecoder:
    """Reads symbols back in the order in which they were put."""

    def __init__(self, payload: bytes) -> None:
        padded = payload + bytes(-len(payload) % 4)
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def get(self, index: Ints, tables: TableSet) -> npt.NDArray[np.int32]:
        """Symbols (n,) for tables index (n,). Raises FormatError for impossible payloads."""
        groups = _Groups(index, tables)
        values = np.empty(len(groups.order), np.int32)
        try:
            for table, start, stop in groups.coded:
                values[start:stop] = self._coder.decode(tables.model(table), stop - start)
            radius = np.repeat(tables.radii, groups.counts)
            values -= radius
            escaped = np.flatnonzero(values > radius)
            if escaped.size:
                far = self._coder.decode(_ESCAPE, len(escaped))
                magnitude = (far >> 1) + radius[escaped] + 1
                values[escaped] = np.where(far & 1, -magnitude, magnitude)
        except (AssertionError, ValueError) as error:
            raise FormatError(
                "the payload is not one that the encoder could have written"
            ) from error
        out = np.zeros(len(index), np.int32)
        out[groups.order] = values
        return out
