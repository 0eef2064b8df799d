"""Signs that cost nothing: the parities of magnitudes say them.

The signs of symbols are coin tosses, a fifth of a file. A coder that takes some symbols one larger
or smaller, those where that matters least, can make parities say whatever it likes, so some of the
signs need not be written. Video codecs hide one in the parity of every group of coefficients ("sign
data hiding", Clare, Henry and Jung, JCTVC-G271, 2011). Here parities go through a code first, a
syndrome-trellis code (Filler, Judas and Fridrich, "Minimizing additive distortion in steganography
using syndrome-trellis codes", IEEE TIFS 6(3), 2011): several times the gain.

    coded elements of a step, by table    ->  `rows` rows of `lanes` elements, one after another
    parities of a lane, from the top      ->  a register of REGISTER bits: where a magnitude is odd
                                              it takes in the row's pattern (exclusive or); where
                                              `rates` say so its lowest bit comes out
    a lane's elements between two bits    ->  a group: its bit says whether an odd number of its
                                              symbols is negative, so one sign need not be written,
                                              that of the first one that is not zero

A symbol that becomes zero, or is no longer zero, changes what its group's bit should be and, by its
parity, what it is: both are linear, so all changes are weighed together. Decoders need `layout`,
`unspelt` and `signs`, which are exact. `hide` is for encoders: it finds the cheapest change of
symbols by dynamic programming over the registers of all lanes at once (Viterbi).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

REGISTER = 5  # bits
RATE_UNITS = 1024  # of these make a sign; `rates` are signs per element
ROWS = 200  # about: long lanes lose less at their ends, many lanes are quicker
# Of the rows, again and again. Odd and with the highest bit set: each row counts at once, and for
# as long as it can.
PATTERNS = (31, 29, 21, 27, 17, 19, 23)

NEVER = np.float32(1e6)  # bits: what must not be
# Costs are added up as 16-bit integers, in 1/16 of a bit: the most that one counts, what must not
# be, and what stays above that whatever is taken off.
_UNITS, _MOST, _NEVER, _BEYOND = 16, 2000, 12000, 20000
_ANY = 2  # in place of a bit
_NONE = 0xFFFF  # in place of a row


@dataclass(frozen=True)
class Layout:
    """Where signs of a step are hidden: in its last rows * lanes coded elements, by table.

    lasts (groups,): the last row of each group, the last of all for the last one. patterns (rows,):
    what an odd magnitude adds to the register.
    """

    lanes: int
    lasts: Int64
    patterns: Bytes

    @property
    def rows(self) -> int:
        """Elements of a lane."""
        return len(self.patterns)

    @property
    def taking(self) -> int:
        """Elements that take part."""
        return self.rows * self.lanes

    @property
    def firsts(self) -> Int64:
        """(groups,): the first row of each group."""
        return np.concatenate([[0], self.lasts[:-1] + 1])


def layout(counts: Int64, rates: Int64) -> Layout | None:
    """The layout for counts (T,) of elements with each table, rates (T,) in 1 / RATE_UNITS.

    Tables before the first with a rate take no part. None where there is nothing to hide in.
    """
    ends = np.cumsum(counts)
    n = int(counts[int(np.argmax(rates > 0)) :].sum())
    lanes = max(1, n // ROWS)
    rows = n // lanes
    tables = np.searchsorted(ends, ends[-1] + lanes * np.arange(-rows, 0), side="right")
    signs = np.cumsum(rates[tables])
    groups = (int(signs[-1]) + RATE_UNITS // 2) // RATE_UNITS if rows else 0
    if not groups:
        return None
    ended = signs * groups // signs[-1]  # groups, with each row
    lasts = np.searchsorted(ended, np.arange(1, groups + 1))
    return Layout(lanes, lasts, np.resize(np.array(PATTERNS, np.uint8), rows))


def unspelt(where: Layout, sizes: Int32) -> Int64:
    """The elements whose signs are not written, by magnitudes (taking,), in order of groups."""
    first = _first(where, sizes.reshape(where.rows, where.lanes))
    spots = first.astype(np.int64) * where.lanes + np.arange(where.lanes)
    found: Int64 = spots[first != _NONE]
    return found


def signs(where: Layout, sizes: Int32, negative: Bools, spots: Int64) -> Bools:
    """Whether the elements that `unspelt` gives, spots, are negative.

    negative (taking,): which ones of the others are.
    """
    shape = where.rows, where.lanes
    others = _by_group(where, negative.reshape(shape).view(np.uint8))
    bits = _syndrome(where, sizes.reshape(shape)) ^ others
    row, lane = np.divmod(spots, where.lanes)
    found: Bools = bits[np.searchsorted(where.lasts, row), lane].astype(bool)
    return found


def hide(where: Layout, sizes: Int32, negative: Bools, up: Float, down: Float) -> Int32:
    """Magnitudes (taking,), some changed by one, from which `signs` finds the signs.

    negative (taking,): signs, also those that symbols would have which are 0. up, down (taking,):
    what changes cost, in bits.
    """
    shape = where.rows, where.lanes
    sizes, negative = sizes.reshape(shape), negative.reshape(shape)
    up, down = up.reshape(shape), down.reshape(shape)
    larger, cost, first = up < down, np.minimum(up, down), _first(where, sizes)
    empty = first == _NONE  # such groups stay empty, and say nothing
    cost[np.repeat(empty, where.lasts - where.firsts + 1, axis=0)] = NEVER
    # One change in each of the others must turn the bit alone, so that there is a way.
    group, lane = np.nonzero(~empty)
    at = first[group, lane], lane
    larger[at] |= negative[at] & (sizes[at] == 1)
    cost[at] = np.where(larger[at], up[at], down[at])
    odd = _by_group(where, (negative & (sizes != 0)).view(np.uint8))
    wanted = np.where(empty, _ANY, odd ^ _syndrome(where, sizes))
    crosses = np.where(larger, sizes == 0, sizes == 1)
    change = _cheapest(where, cost, (crosses & negative).view(np.uint8), wanted)
    changed: Int32 = sizes + np.where(larger, change, -change)
    return changed.ravel()


def _first(where: Layout, sizes: Int32) -> npt.NDArray[np.uint16]:
    """(groups, lanes): row of each group's first symbol that is not zero, _NONE if all are."""
    seen = (sizes == 0).astype(np.uint16)
    np.negative(seen, out=seen)  # _NONE where it is zero
    np.maximum(seen, np.arange(where.rows, dtype=np.uint16)[:, None], out=seen)
    return np.stack([part.min(0) for part in np.split(seen, where.firsts[1:])])


def _syndrome(where: Layout, sizes: Int32) -> Bytes:
    """(groups, lanes): what the registers give, of the parities of magnitudes (rows, lanes)."""
    odd = (sizes & 1).astype(np.uint8)
    odd *= where.patterns[:, None]
    taken = _by_group(where, odd)
    out = taken.copy()
    for age in range(1, REGISTER):  # of what earlier groups took in
        out[age:] ^= np.right_shift(taken[:-age], age, dtype=np.uint8)
    out &= 1
    return out


def _by_group(where: Layout, values: Bytes) -> Bytes:
    """Exclusive or of values (rows, lanes) over the rows of each group: (groups, lanes)."""
    parts = np.split(values, where.firsts[1:])
    return np.stack([np.bitwise_xor.reduce(part) for part in parts])


def _cheapest(where: Layout, cost: Float, turns: Bytes, wanted: Bytes) -> npt.NDArray[np.int8]:
    """1 (rows, lanes) for changes of least cost that turn each group's bit, if wanted is 1.

    turns (rows, lanes): 1 where a change turns what is wanted in its group as well. wanted (groups,
    lanes): 0, 1, or _ANY where it does not matter. A state says how a register differs from what it
    is without changes. Prices of states are relative to the cheapest, from group to group.
    """
    states, lanes = 1 << REGISTER, where.lanes
    dear = np.clip(cost * _UNITS, -_MOST, _MOST).astype(np.int16)
    dear[cost >= NEVER] = _NEVER
    # A change is made in one of two ways: the price of the other one is out of reach.
    beyond, turn = np.int16(_BEYOND), turns.view(bool)
    plain, turning = np.where(turn, beyond, dear), np.where(turn, dear, beyond)
    price = np.full((states, lanes), _NEVER, np.int16)
    price[0] = 0
    flipped = [_flipped(price, pattern) for pattern in range(states)]
    taken = np.empty((where.rows, states, lanes), bool)
    picked = np.empty((len(wanted), states // 2, lanes), bool)
    changed, turned = (np.empty((2,) * REGISTER + (lanes,), np.int16) for _ in range(2))
    flat, group = changed.reshape(price.shape), 0
    wrong = [(wanted == bit) * np.int16(_NEVER) for bit in (1, 0)]  # what bits cost, by group
    for row, pattern in enumerate(where.patterns.tolist()):
        np.add(flipped[pattern], plain[row], out=changed)
        np.add(flipped[pattern ^ 1], turning[row], out=turned)
        np.minimum(changed, turned, out=changed)
        np.less(flat, price, out=taken[row])
        np.minimum(price, flat, out=price)
        if row == where.lasts[group]:
            same, other = (price[bit::2] + wrong[bit][group] for bit in (0, 1))
            np.less(other, same, out=picked[group])
            np.minimum(same, other, out=same)
            same -= same.min(0)
            np.minimum(same, _NEVER, out=price[: states // 2])
            price[states // 2 :] = _NEVER
            group += 1
    patterns = where.patterns[:, None] ^ turns
    return _traced(where, np.argmin(price, 0), patterns, taken, picked)


def _flipped(price: npt.NDArray[np.int16], pattern: int) -> npt.NDArray[np.int16]:
    """A view of prices (states, lanes), a bit an axis: at each state that of state ^ pattern."""
    turns = (
        slice(None, None, -1 if pattern >> bit & 1 else 1) for bit in reversed(range(REGISTER))
    )
    return price.reshape((2,) * REGISTER + price.shape[1:])[tuple(turns)]


def _traced(
    where: Layout, state: Int64, patterns: Bytes, taken: Bools, picked: Bools
) -> npt.NDArray[np.int8]:
    """The way back from the last states (lanes,): 1 (rows, lanes) for changes.

    patterns (rows, lanes): what a change does to the state.
    """
    lanes, lane = where.lanes, np.arange(where.lanes)
    change, group = np.empty((where.rows, lanes), np.int8), len(where.lasts) - 1
    for row in reversed(range(where.rows)):
        if row == where.lasts[group]:
            state = state * 2 + picked[group].ravel().take(state * lanes + lane)
            group -= 1
        step = change[row]
        step[:] = taken[row].ravel().take(state * lanes + lane)
        state ^= step * patterns[row]
    return change
