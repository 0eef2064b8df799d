"""Hyper-latents <-> bytes: which frozen table each one is coded with.

A model with contexts codes them from coarse to fine, so that most are seen among neighbours that
are known. Their mean and their size say which table, which saves a seventh of the bits where files
are small. In other models a table follows from channel and quality alone.

    o . + . o   o - o - o     o: coded first, one in sixteen, with nothing around
    . . . . .   - x - x -     x: then, with o at its corners
    + . x . +   o - o - o     +: then, with o and x at its sides
    . . . . .   - x - x -     x and - on the right: the same at half the distance, where all
    o . + . o   o - o - o        that came before is o

All arrays are of integers. z is (Z,h,w); among its neighbours it is (h,w,Z), the order in which
contexts code it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aecodec.entropy import PRECISION, SymbolDecoder, SymbolEncoder, TableSet
from aecodec.prior import MAX_QUALITY, Z_LIMIT

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

PARTS = 12  # of these make one in a mean: it divides by 1, 2, 3 and 4 neighbours
COARSEST = 4  # rows and columns between those that come first
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Lattice(NamedTuple):
    """Rows row, row + step, ... and columns column, column + step, ...; neighbours at `offsets`."""

    row: int
    column: int
    step: int
    offsets: tuple[tuple[int, int], ...]

    @property
    def spans(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.row, None, self.step), slice(self.column, None, self.step)


def passes() -> Iterator[tuple[Lattice, ...]]:
    """From coarse to fine: what is coded at once, each position in one lattice."""
    yield (Lattice(0, 0, COARSEST, ()),)
    stride = COARSEST
    while stride > 1:
        half = stride // 2
        corners, sides = (
            tuple((half * down, half * right) for down, right in around)
            for around in (CORNERS, SIDES)
        )
        yield (Lattice(half, half, stride, corners),)
        yield Lattice(0, half, stride, sides), Lattice(half, 0, stride, sides)
        stride = half


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of a lattice's elements: count (rows,columns,1), sum and sum of magnitudes (...,Z)."""

    count: Int32
    total: Int32
    size: Int32


def neighbours(z: Int32, lattice: Lattice) -> Neighbours:
    """What z (h,w,Z) says around a lattice's elements; those outside do not count."""
    rows, columns = (
        range(first, length, lattice.step)
        for first, length in zip((lattice.row, lattice.column), z.shape, strict=False)
    )
    shape = len(rows), len(columns)
    count, (total, size) = (
        np.zeros((*shape, 1), np.int32),
        np.zeros((2, *shape, z.shape[2]), np.int32),
    )
    for down, right in lattice.offsets:
        (to_rows, from_rows), (to_columns, from_columns) = (
            _inside(rows, down, z.shape[0]), _inside(columns, right, z.shape[1])
        )  # fmt: skip
        there = z[from_rows, from_columns]
        count[to_rows, to_columns] += 1
        total[to_rows, to_columns] += there
        size[to_rows, to_columns] += np.abs(there)
    return Neighbours(count, total, size)


def _inside(places: range, move: int, length: int) -> tuple[slice, slice]:
    """Which of some places are within a length when they are moved, and where they then are."""
    first = max(0, -((places.start + move) // places.step))
    count = len(places[first:])
    if count and places[-1] + move >= length:
        count -= 1  # no place moves by more than a step
    start = places.start + first * places.step + move
    return slice(first, first + count), slice(start, start + count * places.step, places.step)


@dataclass(frozen=True, eq=False)
class Contexts:
    """Tables by neighbours. classes (B,Z): of a channel, by bucket of quality. by_mean and by_size
    (Z_LIMIT * PARTS + 1,): groups of the neighbours' mean, as a magnitude, and mean magnitude, both
    in 1 / PARTS.

    Each class has one table for elements without neighbours, then a row of tables for each group of
    means. Where the mean is negative the symbol coded is -z.
    """

    classes: Int64
    by_mean: Int64
    by_size: Int64

    @property
    def per_class(self) -> int:
        """Tables of a class."""
        return 1 + (int(self.by_mean.max()) + 1) * (int(self.by_size.max()) + 1)

    def of(self, around: Neighbours, bucket: int) -> Int64:
        """Table of each element (rows,columns,Z)."""
        first: Int64 = self.classes[bucket] * self.per_class
        if not around.count.all():  # only what comes first has no neighbours, and none of it has
            return np.broadcast_to(first, around.total.shape)
        share = PARTS // around.count
        tables: Int64 = self._row.take(np.abs(around.total) * share)
        tables += self.by_size.take(around.size * share)
        tables += first
        return tables

    def batches(self, z: Int32, bucket: int) -> Iterator[tuple[Int32, Int64]]:
        """Symbols of z (h,w,Z) and their tables, in the order in which they are coded."""
        for lattices in passes():
            parts = []
            for lattice in lattices:
                around, values = neighbours(z, lattice), z[lattice.spans]
                index = self.of(around, bucket)
                parts.append((np.where(around.total < 0, -values, values).ravel(), index.ravel()))
            symbols, tables = (np.concatenate(part) for part in zip(*parts, strict=True))
            yield symbols, tables

    @functools.cached_property
    def _row(self) -> Int64:
        """Where in a class the tables of each magnitude of a mean begin."""
        return 1 + self.by_mean * (int(self.by_size.max()) + 1)


@dataclass(frozen=True, eq=False)
class HyperTables:
    """How a model codes z. channels: Z."""

    tables: TableSet
    channels: int
    contexts: Contexts | None = None

    def bucket(self, quality: int) -> int:
        """The bucket of a quality in hundredths."""
        if self.contexts is not None:
            buckets = len(self.contexts.classes)
        else:
            buckets = len(self.tables.sizes) // self.channels
        return (quality * (buckets - 1) + MAX_QUALITY // 2) // MAX_QUALITY

    def bits(self, z: Int32, quality: int) -> float:
        """Ideal code length of z."""
        return sum(self.tables.bits(*batch) for batch in self._batches(z, quality))

    def write(self, coder: SymbolEncoder, z: Int32, quality: int) -> None:
        """Code z."""
        for batch in self._batches(z, quality):
            coder.put(*batch, self.tables)

    def read(self, coder: SymbolDecoder, shape: tuple[int, int], quality: int) -> Int32:
        """The z (Z,h,w) that was coded, shape (h,w). Raises FormatError."""
        if self.contexts is None:
            flat = coder.get(self._by_channel(shape, quality).ravel(), self.tables)
            return flat.reshape(-1, *shape)
        z, bucket = np.zeros((*shape, self.channels), np.int32), self.bucket(quality)
        for lattices in passes():
            around = [neighbours(z, lattice) for lattice in lattices]
            index = np.concatenate([self.contexts.of(each, bucket).ravel() for each in around])
            values, start = coder.get(index, self.tables), 0
            for lattice, each in zip(lattices, around, strict=True):
                total = each.total
                part = values[start : start + total.size].reshape(total.shape)
                z[lattice.spans] = np.where(total < 0, -part, part)
                start += total.size
        return np.ascontiguousarray(z.transpose(2, 0, 1))

    def costs(self, z: Int32, quality: int) -> Float:
        """Bits (Z,h,w,values) that values -Z_LIMIT..Z_LIMIT cost where the others are as in z."""
        index, flip = self._by_channel(z.shape[1:], quality), np.zeros(z.shape, bool)
        if self.contexts is not None:
            cells = z.transpose(1, 2, 0)
            for lattice in itertools.chain(*passes()):
                around, at = neighbours(cells, lattice), (slice(None), *lattice.spans)
                index[at] = self.contexts.of(around, self.bucket(quality)).transpose(2, 0, 1)
                flip[at] = around.total.transpose(2, 0, 1) < 0
        values = 2 * Z_LIMIT + 1
        frequencies = self.tables.frequencies.reshape(-1, values)
        bits: Float = -np.log2(frequencies / 2.0**PRECISION)
        found = bits[index]
        found[flip] = found[flip][:, ::-1]
        return found

    def _batches(self, z: Int32, quality: int) -> Iterator[tuple[Int32, Int64]]:
        """Symbols and their tables, in the order in which they are coded."""
        if self.contexts is None:
            yield z.ravel(), self._by_channel(z.shape[1:], quality).ravel()
            return
        cells = np.ascontiguousarray(z.transpose(1, 2, 0))
        yield from self.contexts.batches(cells, self.bucket(quality))

    def _by_channel(self, shape: tuple[int, ...], quality: int) -> Int64:
        """Table of every element (Z,h,w) by its channel; with contexts, that without neighbours."""
        bucket = self.bucket(quality)
        if self.contexts is not None:
            first = self.contexts.classes[bucket] * self.contexts.per_class
        else:
            first = np.arange(self.channels) + bucket * self.channels
        return np.broadcast_to(first[:, None, None], (self.channels, *shape)).copy()


def hyper_tables(tables: Mapping[str, npt.NDArray[Any]], channels: int) -> HyperTables:
    """Those among the tables of a model."""
    contexts = None
    if "z_class" in tables:
        names = ("z_class", "z_by_mean", "z_by_size")
        contexts = Contexts(*(tables[name].astype(np.int64) for name in names))
    found = TableSet(tables["z_frequencies"], tables["z_sizes"], skip_first=False)
    return HyperTables(found, channels, contexts)
