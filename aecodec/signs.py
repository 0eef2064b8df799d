"""A step's symbols as magnitudes and signs, some of them hidden in parities (`aecodec.hiding`).

A model says with rates, one for each table, how many; models without them code a symbol and its
sign as one. All arrays are (n,), of a step's elements in coding order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aecodec.entropy import Groups, SymbolDecoder, SymbolEncoder
from aecodec.hiding import NEVER, Layout, hide, layout, signs, unspelt
from aecodec.quantise import DEEPEST, STRENGTH

if TYPE_CHECKING:
    from aecodec.model import Model

Float = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Index = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Weights:
    """What symbols are chosen by: strength of the dead zone, and worth of a squared step in bits.

    Each for all elements, or (n,).
    """

    strength: float | Float
    worth: float | Float

    def of(self, order: Int64) -> Weights:
        """Those of some elements."""
        parts = (self.strength, self.worth)
        return Weights(*(part[order] if isinstance(part, np.ndarray) else part for part in parts))

    @property
    def share(self) -> float | Float:
        """Of a magnitude's own bits: by rounding alone rare symbols would be made for nothing."""
        strength = self.strength
        return strength if isinstance(strength, np.ndarray) else max(strength, STRENGTH)


def write(coder: SymbolEncoder, symbols: Int32, groups: Groups, model: Model) -> None:
    """Code symbols of which the tables are grouped, as `hidden` gives them.

    Raises OverflowError beyond SYMBOL_LIMIT, ValueError for parities that say other signs.
    """
    values = symbols[groups.order]
    if model.rates is None:
        coder.put_grouped(values, groups, model.y_tables)
        return
    sizes = np.abs(values)
    coder.put_grouped(sizes, groups, model.y_tables.magnitudes)
    parts = _parted(groups, sizes, model.rates)
    negative = values < 0
    told = negative[parts.unspelt]
    coder.put_bits(negative[parts.spelt])
    negative[parts.unspelt] = False
    if not np.array_equal(parts.signs(sizes, negative), told):
        raise ValueError("symbols whose signs are not hidden")


def read(coder: SymbolDecoder, index: Index, model: Model) -> Int32:
    """The symbols that `write` coded. Raises FormatError for impossible payloads."""
    if model.rates is None:
        return coder.get(index, model.y_tables)
    groups = Groups(index, model.y_tables)
    sizes = coder.get_grouped(groups, model.y_tables.magnitudes)
    parts, negative = _parted(groups, sizes, model.rates), np.zeros(len(sizes), bool)
    negative[parts.spelt] = coder.get_bits(len(parts.spelt))
    negative[parts.unspelt] = parts.signs(sizes, negative)
    np.negative(sizes, out=sizes, where=negative)
    symbols = np.zeros(len(index), np.int32)
    symbols[groups.order] = sizes
    return symbols


def bits(symbols: Int32, index: Index, groups: Groups, model: Model) -> float:
    """Ideal code length of what `write` writes; index: the tables."""
    if model.rates is None:
        return model.y_tables.bits(symbols, index)
    sizes = np.abs(symbols)
    spelt = _parted(groups, sizes[groups.order], model.rates).spelt
    return model.y_tables.magnitudes.bits(sizes, index) + len(spelt)


@dataclass(frozen=True)
class _Parts:
    """Elements, in order of tables, whose signs are written and whose signs are hidden."""

    spelt: Int64
    unspelt: Int64
    where: Layout | None

    def signs(self, sizes: Int32, negative: Bools) -> Bools:
        """Which of the hidden ones are negative, by all magnitudes and the signs of the others."""
        if self.where is None:
            return np.zeros(0, bool)
        start = len(sizes) - self.where.taking
        return signs(self.where, sizes[start:], negative[start:], self.unspelt - start)


def _parted(groups: Groups, sizes: Int32, rates: Int64) -> _Parts:
    """Of magnitudes in order of tables."""
    there, where = sizes != 0, layout(groups.counts, rates)
    if where is None:
        return _Parts(np.flatnonzero(there), np.zeros(0, np.int64), None)
    start = len(sizes) - where.taking
    hidden = unspelt(where, sizes[start:]) + start
    there[hidden] = False
    return _Parts(np.flatnonzero(there), hidden, where)


def hidden(
    symbols: Int32, r: Float, index: Index, groups: Groups, weights: Weights, model: Model
) -> Int32:
    """Symbols chosen for residuals r, some changed by one so that their parities say signs."""
    if model.rates is None:
        return symbols
    where = layout(groups.counts, model.rates)
    if where is None:
        return symbols
    order = groups.order[-where.taking :]
    r, sizes, table = r[order], np.abs(symbols[order]), index[order]
    up, down = _costs(np.abs(r) - sizes, sizes, table, weights.of(order), model)
    sizes = hide(where, sizes, r < 0, up, down)
    out = symbols.copy()
    out[order] = np.where(r < 0, -sizes, sizes)
    return out


def _costs(
    over: Float, sizes: Int32, table: Index, weights: Weights, model: Model
) -> tuple[Float, Float]:
    """Bits that magnitudes cost when they are one larger and one smaller.

    over: what the residual's magnitude has above them. A squared step is worth `weights.worth`
    bits, and of those that a magnitude costs itself `weights.share` counts.
    """
    at = table.astype(np.int32) * (DEEPEST + 1)
    shifts, half, twice = model.shifts.ravel(), np.float32(0.5), 2 * weights.worth
    up, down = (shifts.take(at + np.minimum(sizes + more, DEEPEST)) for more in (1, 0))
    for shift in (up, down):
        shift *= weights.share
        np.minimum(shift, half, out=shift)
        shift -= over
    np.negative(down, out=down)
    for shift in (up, down):
        shift += half
        shift *= twice
    up[sizes >= model.y_tables.radii.take(table)] = NEVER  # an escape
    down[sizes == 0] = NEVER
    return up, down
