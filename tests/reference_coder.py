"""The range decoder of docs/format.md in plain Python integers, and the payload's grammar.

Written from the document, not from the coder that the package uses: slow, obvious, and the
check that the document says enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

WORD, PRECISION = 32, 24
STATE = 2**64


class Exhausted(Exception):
    """The payload is not one that an encoder writes."""


class RangeDecoder:
    """State: `lower` and `width` of the interval, and the `point` of the payload in it."""

    def __init__(self, payload: bytes) -> None:
        payload += bytes(-len(payload) % 4)
        self.words = [int.from_bytes(payload[i : i + 4], "big") for i in range(0, len(payload), 4)]
        self.position = 0
        self.lower, self.width = 0, STATE - 1
        self.point = self.word() << WORD | self.word()

    def word(self) -> int:
        """The next word; beyond the end there are zeros for ever."""
        self.position += 1
        return self.words[self.position - 1] if self.position <= len(self.words) else 0

    def entry(self, frequencies: Sequence[int]) -> int:
        """Number of the next entry of a table whose frequencies sum to 2^24."""
        unit = self.width >> PRECISION
        slot = (self.point - self.lower) % STATE // unit
        if slot >= 2**PRECISION:
            raise Exhausted
        below = entry = 0
        while below + frequencies[entry] <= slot:
            below += frequencies[entry]
            entry += 1
        self.lower = (self.lower + unit * below) % STATE
        self.width = unit * frequencies[entry]
        if self.width < 2**WORD:
            self.lower = (self.lower << WORD) % STATE
            self.width <<= WORD
            self.point = (self.point << WORD | self.word()) % STATE
        return entry

    def raw(self) -> int:
        """The next 16 bits of an escape: all 65536 values are equally likely."""
        unit = self.width >> PRECISION
        slot = (self.point - self.lower) % STATE // unit
        value = slot >> 8
        if value >= 2**16:
            raise Exhausted
        self.lower = (self.lower + unit * (value << 8)) % STATE
        self.width = unit << 8
        if self.width < 2**WORD:
            self.lower = (self.lower << WORD) % STATE
            self.width <<= WORD
            self.point = (self.point << WORD | self.word()) % STATE
        return value


class ReferenceDecoder:
    """Stands in for aecodec.entropy.SymbolDecoder."""

    def __init__(self, payload: bytes) -> None:
        self.coder = RangeDecoder(payload)

    def get(self, index: npt.NDArray[np.integer], tables: object) -> npt.NDArray[np.int32]:
        """Symbols of one group of elements: by table in rising order, then the escapes."""
        sizes, frequencies = tables.sizes.tolist(), tables.frequencies.tolist()
        starts = np.concatenate([[0], np.cumsum(tables.sizes)]).tolist()
        symbols, escapes = [0] * len(index), []
        for table in sorted(set(index.tolist())):
            if table == 0 and tables.skip_first:
                continue
            counts = frequencies[starts[table] : starts[table + 1]]
            radius = (sizes[table] - 1) // 2
            for element in np.flatnonzero(index == table).tolist():
                symbols[element] = self.coder.entry(counts) - radius
                if symbols[element] > radius:
                    escapes.append((element, radius))
        for element, radius in escapes:
            raw = self.coder.raw()
            magnitude = raw // 2 + radius + 1
            symbols[element] = -magnitude if raw % 2 else magnitude
        return np.array(symbols, np.int32)
