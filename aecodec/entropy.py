"""Integer symbols <-> bytes. The only module that knows the range coder (constriction).

A `TableSet` holds frozen integer frequency tables, each summing to 2^24 (constriction's
precision), which the coder takes as they are. Symbols come as arrays with the index of the table
each one is coded with; they are grouped by table (`Groups`), so the coder is called once per table
and not once per symbol. Table index 0 of an open set is the "certain zero": nothing is coded.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from aecodec.errors import FormatError

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
PRECISION = 24  # bits; every table sums to 2^24
ESCAPE_BITS = 16  # a value outside its table is coded as an escape and these raw bits
SYMBOL_LIMIT = 32000  # |symbol| never exceeds this, so 16-bit integers hold it

_STATE = 1 << 64  # the coder's interval is kept modulo this
_LAST_WORD = (1 << 32) - 1  # what the coder adds to the lower end to make its last word
_AT_ONCE = 16  # bits that are coded as one number


@dataclass(frozen=True)
class TableSet:
    """Frozen frequency tables.

    frequencies: all tables one after the other; sizes (T,): entries of each. Table t codes
    the values -radius..radius with radius = sizes // 2 if it is closed (odd size) or
    (sizes - 1) // 2 if its last entry is the escape (even size). `skip_first` marks sets
    whose table 0 codes nothing and stands for the value 0. A `folded` set codes magnitudes, 0 to
    radius and the escape: sizes - 2 is the radius.
    """

    frequencies: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.int32]
    skip_first: bool
    folded: bool = False

    @functools.cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(T + 1,) offsets of the tables in `frequencies`."""
        return np.concatenate([[0], np.cumsum(self.sizes.astype(np.int64))])

    @functools.cached_property
    def radii(self) -> npt.NDArray[np.int32]:
        """(T,) `radius` of every table, 0 for the certain zero."""
        sizes = self.sizes.astype(np.int32)
        radii = sizes - 2 if self.folded else (sizes - 1) // 2
        if self.skip_first:
            radii[0] = 0
        return radii

    @functools.cached_property
    def _models(self) -> dict[int, object]:
        return {}

    @functools.cached_property
    def open(self) -> npt.NDArray[np.bool_]:
        """(T,) whether a table has an escape entry; the certain zero has none."""
        found: npt.NDArray[np.bool_] = (self.sizes % 2 == 0) | self.folded
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
    def magnitudes(self) -> TableSet:
        """The folded set of an open one: a value and its negative share an entry."""
        parts = []
        for start, stop in itertools.pairwise(self.starts):
            own = self.frequencies[start:stop]
            zero = (len(own) - 1) // 2
            both = own[zero + 1 : 2 * zero + 1] + own[:zero][::-1]
            parts.append(np.concatenate([own[zero : zero + 1], both, own[2 * zero + 1 :]]))
        sizes = np.array([len(part) for part in parts], np.int32)
        return TableSet(np.concatenate(parts), sizes, self.skip_first, folded=True)

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
        coded = index != 0 if self.skip_first else np.ones(index.shape, bool)
        values, index = symbols[coded].astype(np.int64), index[coded]
        radius = self.radii[index]
        outside = np.abs(values) > radius
        entry = np.where(outside, self.sizes[index] - 1, values + self.lowest[index])
        cost = PRECISION - np.log2(self.frequencies[entry + self.starts[index]])
        return float(cost.sum()) + ESCAPE_BITS * int(outside.sum())

    @functools.cached_property
    def lowest(self) -> npt.NDArray[np.int32]:
        """(T,): what is added to a value to get its entry."""
        return np.zeros_like(self.radii) if self.folded else self.radii


class Groups:
    """Elements that are coded, in order of their tables: certain zeros, most of all, are left out.

    order (n,): where they stand. counts (T,): how many there are of every table. coded: table,
    start and stop in `order` of each table that has any.
    """

    def __init__(self, index: Ints, tables: TableSet) -> None:
        narrow = index.astype(np.uint8 if len(tables.sizes) <= 256 else np.uint16, copy=False)
        zeros = len(narrow) - int(np.count_nonzero(narrow)) if tables.skip_first else 0
        if 2 * zeros > len(narrow):  # quicker than to sort them too, and they come first
            at = np.flatnonzero(narrow != 0)
            self.order = at[np.argsort(narrow[at], kind="stable")]  # a radix sort for such types
        else:
            self.order = np.argsort(narrow, kind="stable")[zeros:]
        self.counts = np.bincount(narrow, minlength=len(tables.sizes))
        self.counts[0] -= zeros
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
        groups = Groups(index, tables)
        self.put_grouped(symbols[groups.order], groups, tables)

    def put_grouped(self, values: Ints, groups: Groups, tables: TableSet) -> None:
        """As `put` those that are coded, in the order of `groups`."""
        values = values.astype(np.int32)
        if values.size and int(np.abs(values).max()) > SYMBOL_LIMIT:
            raise OverflowError("symbol out of range")
        radius, last, lowest, open_ = (
            np.repeat(part, groups.counts)
            for part in (tables.radii, tables.sizes - 1, tables.lowest, tables.open)
        )
        outside = np.flatnonzero((np.abs(values) > radius) & open_)
        far, values = values[outside], values + lowest
        values[outside] = last[outside]
        for table, start, stop in groups.coded:
            self._coder.encode(values[start:stop], tables.model(table))
        if outside.size:
            beyond = (np.abs(far) - radius[outside] - 1) * 2 + (far < 0)
            self._coder.encode(beyond.astype(np.int32), _uniform(ESCAPE_BITS))

    def put_bits(self, bits: Bools) -> None:
        """Code bits (n,), each as likely as its opposite: sixteen at once, then the rest."""
        whole = len(bits) - len(bits) % _AT_ONCE
        for part, size in ((bits[:whole], _AT_ONCE), (bits[whole:], len(bits) - whole)):
            if len(part):
                numbers = part.reshape(-1, size) @ (1 << np.arange(size)[::-1])
                self._coder.encode(numbers.astype(np.int32), _uniform(size))

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
        groups = Groups(index, tables)
        out = np.zeros(len(index), np.int32)
        out[groups.order] = self.get_grouped(groups, tables)
        return out

    def get_grouped(self, groups: Groups, tables: TableSet) -> npt.NDArray[np.int32]:
        """As `get` those that are coded, in the order of `groups`."""
        values = np.empty(len(groups.order), np.int32)
        with _refused():
            for table, start, stop in groups.coded:
                values[start:stop] = self._coder.decode(tables.model(table), stop - start)
            radius = np.repeat(tables.radii, groups.counts)
            if not tables.folded:
                values -= radius
            escaped = np.flatnonzero(values > radius)
            if escaped.size:
                far = self._coder.decode(_uniform(ESCAPE_BITS), len(escaped))
                magnitude = (far >> 1) + radius[escaped] + 1
                values[escaped] = np.where(far & 1, -magnitude, magnitude)
                if tables.folded and (far & 1).any():
                    raise ValueError("a negative magnitude")
        return values

    def get_bits(self, count: int) -> Bools:
        """Bits (count,). Raises FormatError for impossible payloads."""
        parts = [np.zeros(0, bool)]
        for length, size in ((count // _AT_ONCE, _AT_ONCE), (1, count % _AT_ONCE)):
            if length and size:
                with _refused():
                    numbers = self._coder.decode(_uniform(size), length)
                parts.append((numbers[:, None] >> np.arange(size)[::-1] & 1).astype(bool).ravel())
        return np.concatenate(parts)


def _uniform(bits: int) -> Any:
    """The coder's model of numbers of so many bits, all equally likely."""
    return constriction.stream.model.Uniform(1 << bits)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """What the coder finds impossible is a FormatError."""
    try:
        yield
    except (AssertionError, ValueError) as error:
        raise FormatError("the payload is not one that the encoder could have written") from error
