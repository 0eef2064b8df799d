"""Effort: how much of the encoder's time goes into smaller files. Decoders hardly notice.

    1      symbols by rounding
    2      symbols from a dead zone that knows how rare each one is and what an error in each
           channel costs; hyper-latents likewise
    3      the same after a look at what the decoder's filter makes of the picture; colours turned
           so that most of the detail is in luma (`aecodec.axes`); at high qualities the filter's
           last layer tuned to the picture (`aecodec.tuning`): the default
    4      a second look, through the decoder and back by gradients; the filter tuned at every
           quality
    5..9   colours turned by trial; passes with true symbols through decoder and probability model
           and back, each of which corrects what the last one left in the picture and what it made
           later symbols cost

Each level does what the one below does and then more. From 4 on it keeps the best it has seen, so
that more effort never costs more for colours turned alike (J of `aecodec.cost`). 3 does not
compare, which would take a third of its time: it saves 7 % over 2 on three photographs, more on
screens and drawings, and costs up to 1 % more on a rare pattern (5 % on artificial ones of a
hundred pixels at low quality). To tune the filter takes half as long as all the rest of 3, which
is not more than other codecs of the day take at such qualities.
benchmarks/effort.py measures what each level saves and takes; docs/cli.md has the table.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from aecodec.errors import AecError

VARIABLE = "AECODEC_EFFORT"
DEFAULT = 3
LEAST, MOST = 1, 9
NEVER = 10001  # above every quality, in hundredths


@dataclass(frozen=True)
class Level:
    """What the encoder does at one level.

    by_cost: the dead zone knows what the error in each channel costs, and hyper-latents are chosen
    by their cost too, with z_worth bits for a squared error of one in them. looks: at what the
    filter does, to make up for it before symbols are chosen, the second one by gradients. passes:
    of the search after that (`aecodec.search`). turns: colours may be turned, as it seems best or,
    if there are tries, by trial on so many patches a side (`aecodec.axes`). first: strength of the
    dead zone for the first choice at quality 0, and from `aecodec.search.FULL_AT` on, straight in
    between; later: in the passes. Both are shares of the theoretical shift of `aecodec.quantise`,
    0 for plain rounding, chosen on the validation set.
    tunes_from: quality, in hundredths, from which the filter is tuned to the picture, for which
    about `looked_at` positions of its last layer, at half resolution, are looked at
    (`aecodec.tuning`).
    """

    number: int
    first: tuple[float, float] = (0.3, 0.5)
    later: tuple[float, float] = (0.8, 1.1)
    by_cost: bool = True
    looks: int = 1
    passes: int = 0
    turns: bool = True
    tries: int = 0
    z_worth: float = 200.0
    tunes_from: int = NEVER
    looked_at: int = 2**17

    @property
    def gradients(self) -> bool:
        """Whether it goes back through the decoder, which takes all cores and much memory."""
        return self.looks > 1 or self.passes > 0


LEVELS = {
    level.number: level
    for level in (
        Level(1, first=(0.0, 0.0), by_cost=False, looks=0, turns=False),
        Level(2, first=(0.6, 0.6), looks=0, turns=False),
        Level(DEFAULT, tunes_from=8500),
        Level(4, looks=2, tunes_from=0),
        *(
            Level(number, looks=2, passes=passes, tries=tries, tunes_from=0, looked_at=2**19)
            for number, passes, tries in ((5, 1, 2), (6, 3, 4), (7, 6, 4), (8, 12, 4), (9, 40, 4))
        ),
    )
}

DRAFT = LEVELS[2]  # what tries out qualities for the slower levels


def level(effort: int | None = None) -> Level:
    """The level asked for: the argument, else AECODEC_EFFORT, else DEFAULT.

    Raises AecError for anything but 1 to 9.
    """
    asked: object = effort
    if effort is None:
        asked = os.environ.get(VARIABLE, "").strip() or DEFAULT
    number = int(asked) if isinstance(asked, str) and asked.isdecimal() else asked
    if isinstance(number, bool) or not isinstance(number, int) or number not in LEVELS:
        raise AecError(f"effort {asked!s} is not a whole number from {LEAST} to {MOST}")
    return LEVELS[number]
