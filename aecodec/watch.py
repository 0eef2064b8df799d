"""Time for a search: shared out among the tiles of a picture, and how far it is."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

Report = Callable[[float], None]


class Clock:
    """The time of one tile."""

    def __init__(self, deadline: float = float("inf"), report: Report | None = None) -> None:
        self._deadline, self._report = deadline, report

    def out(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._deadline

    def at(self, share: float) -> None:
        """Report how far the tile is, from 0 to 1."""
        if self._report is not None:
            self._report(share)


class Watch:
    """The time of one picture. Safe to use from several threads.

    tiles: how many there are; workers: how many are worked on at once; limit: seconds for all
    of them together, 0 for none; report: called with how far the picture is, 0 to 1.
    """

    def __init__(
        self, tiles: int, workers: int, limit: float = 0.0, report: Report | None = None
    ) -> None:
        self._left, self._tiles, self._workers = tiles, tiles, max(1, workers)
        self._end = time.monotonic() + limit if limit else float("inf")
        self._report, self._lock = report, threading.Lock()
        self._shares: dict[int, float] = {}

    @contextlib.contextmanager
    def tile(self) -> Iterator[Clock]:
        """The clock of the next tile, which gets an even share of what is left."""
        with self._lock:
            number, now = self._left, time.monotonic()
            share = (self._end - now) * min(self._workers, self._left) / max(1, self._left)
            self._left -= 1

        def at(value: float) -> None:
            assert self._report is not None
            with self._lock:
                self._shares[number] = value
                self._report(sum(self._shares.values()) / self._tiles)

        yield Clock(now + share, at if self._report else None)
        if self._report:
            at(1.0)
