"""Hyper-latents among their neighbours: coded as the format says, and read back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aecodec.entropy import PRECISION, SymbolDecoder, SymbolEncoder, TableSet
from aecodec.errors import FormatError
from aecodec.hyper import Contexts, HyperTables, Lattice, passes
from aecodec.prior import Z_LIMIT

CHANNELS, BUCKETS, CLASSES = 3, 2, 2
BY_MEAN = np.minimum(np.arange(Z_LIMIT * 12 + 1) // 9, 3)
BY_SIZE = np.minimum(np.arange(Z_LIMIT * 12 + 1) // 7, 2)
VALUES = 2 * Z_LIMIT + 1
SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (8, 12), (7, 1), (1, 40), (17, 16), (5, 31)]


@pytest.fixture(scope="module")
def coding() -> HyperTables:
    """Tables that differ, narrower ones for small contexts."""
    contexts = Contexts(np.array([[0, 1, 1], [1, 0, 1]]), BY_MEAN, BY_SIZE)
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(CLASSES * contexts.per_class):
        width, middle = rng.uniform(0.3, 4), rng.uniform(0, 3)
        shares = np.exp(-np.abs(np.arange(VALUES) - Z_LIMIT - middle) / width) + 1e-5
        row = np.floor(shares / shares.sum() * ((1 << PRECISION) - VALUES)).astype(np.int64) + 1
        row[Z_LIMIT] += (1 << PRECISION) - row.sum()
        rows.append(row)
    frequencies = np.concatenate(rows).astype(np.uint32)
    sizes = np.full(len(rows), VALUES, np.int32)
    return HyperTables(TableSet(frequencies, sizes, skip_first=False), CHANNELS, contexts)


def latents(seed: int, shape: tuple[int, int], most: int = 3) -> npt.NDArray[np.int32]:
    """Any z, mostly small."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, most / 2, (CHANNELS, *shape)).round()
    return np.clip(z, -Z_LIMIT, Z_LIMIT).astype(np.int32)


def by_the_book(z: npt.NDArray[np.int32], coding: HyperTables, bucket: int) -> list[list[tuple]]:
    """Batches of (symbol, table), as docs/format.md tells it, an element at a time."""
    assert coding.contexts is not None
    channels, h, w = z.shape
    stride = 4
    columns = BY_SIZE.max() + 1
    each = 1 + (BY_MEAN.max() + 1) * columns

    def coded(c: int, i: int, j: int, around: list[tuple[int, int]]) -> tuple[int, int]:
        inside = [(i + a, j + b) for a, b in around if 0 <= i + a < h and 0 <= j + b < w]
        table, symbol = coding.contexts.classes[bucket][c] * each, z[c, i, j]
        if inside:
            total = sum(int(z[c, a, b]) for a, b in inside)
            size = sum(abs(int(z[c, a, b])) for a, b in inside)
            mean, about = (12 * part // len(inside) for part in (abs(total), size))
            table += 1 + BY_MEAN[mean] * columns + BY_SIZE[about]
            symbol = -symbol if total < 0 else symbol
        return int(symbol), int(table)

    def batch(parts: list[tuple[int, int]], step: int, around: list[tuple[int, int]]) -> list:
        return [
            coded(c, i, j, around)
            for first, second in parts
            for i in range(first, h, step)
            for j in range(second, w, step)
            for c in range(channels)
        ]

    found = [batch([(0, 0)], stride, [])]
    while stride > 1:
        s = stride // 2
        found.append(batch([(s, s)], stride, [(-s, -s), (-s, s), (s, -s), (s, s)]))
        found.append(batch([(0, s), (s, 0)], stride, [(-s, 0), (s, 0), (0, -s), (0, s)]))
        stride = s
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_every_position_is_coded_once_after_its_neighbours(shape: tuple[int, int]) -> None:
    when = np.full(shape, -1)
    for number, lattices in enumerate(passes()):
        for lattice in lattices:
            assert (when[lattice.spans] == -1).all()
            when[lattice.spans] = number
            for i in range(lattice.row, shape[0], lattice.step):
                for j in range(lattice.column, shape[1], lattice.step):
                    for down, right in lattice.offsets:
                        if 0 <= i + down < shape[0] and 0 <= j + right < shape[1]:
                            assert 0 <= when[i + down, j + right] < number
    assert (when >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quality", [0, 10000])
def test_symbols_and_tables_are_those_of_the_format(
    shape: tuple[int, int], quality: int, coding: HyperTables
) -> None:
    z = latents(sum(shape), shape)
    expected = by_the_book(z, coding, quality // 10000)
    found = [
        list(zip(symbols.tolist(), tables.tolist(), strict=True))
        for symbols, tables in coding._batches(z, quality)
    ]
    assert found == expected


@given(
    seed=st.integers(0, 2**31), height=st.integers(1, 20), width=st.integers(1, 20),
    most=st.integers(0, 40), quality=st.integers(0, 10000), contexts=st.booleans(),
)  # fmt: skip
def test_what_is_written_is_read(
    seed: int, height: int, width: int, most: int, quality: int, contexts: bool,
    coding: HyperTables,
) -> None:  # fmt: skip
    if not contexts:
        frequencies = coding.tables.frequencies[: BUCKETS * CHANNELS * VALUES]
        sizes = coding.tables.sizes[: BUCKETS * CHANNELS]
        coding = HyperTables(TableSet(frequencies, sizes, skip_first=False), CHANNELS)
    z, coder = latents(seed, (height, width), most), SymbolEncoder()
    coding.write(coder, z, quality)
    data = coder.finish()
    assert len(data) * 8 <= coding.bits(z, quality) * 1.001 + 32
    assert np.array_equal(coding.read(SymbolDecoder(data), (height, width), quality), z)


def test_costs_are_what_a_change_costs(coding: HyperTables) -> None:
    z = latents(5, (6, 9))
    costs, before = coding.costs(z, 5100), coding.bits(z, 5100)
    last = [lattice for lattices in passes() for lattice in lattices][-2:]
    for lattice in last:  # nothing follows from these
        i, j = lattice.row + lattice.step, lattice.column + 2 * lattice.step
        for value in (-Z_LIMIT, -1, 0, 2):
            other = z.copy()
            other[1, i, j] = value
            bits = costs[1, i, j, value + Z_LIMIT] - costs[1, i, j, z[1, i, j] + Z_LIMIT]
            assert coding.bits(other, 5100) - before == pytest.approx(bits, abs=1e-6)


def test_any_bytes_give_hyper_latents_or_an_error(coding: HyperTables) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        coder = SymbolDecoder(rng.bytes(int(rng.integers(1, 300))))
        try:
            z = coding.read(coder, (1, 1000), 7000)  # a tile as long as they come
        except FormatError:
            continue
        assert z.shape == (CHANNELS, 1, 1000)
        assert np.abs(z).max() <= Z_LIMIT


def test_lattices_may_be_empty() -> None:
    lattice = Lattice(4, 4, 8, ())
    assert np.zeros((3, 9, 2))[lattice.spans].size == 0
