"""Output tokens of a class in a day."""

from __future__ import annotations

from collections.abc import Callable
from time import time

DAY = 86_400.0


class DayBudget:
    """Counts tokens from midnight to midnight, UTC. What runs when they are spent is let end.

    Attributes:
        tokens: of a day; None: as many as are asked for.

    Args:
        tokens: see above.
        clock: seconds since 1970.
    """

    def __init__(self, tokens: int | None, clock: Callable[[], float] = time) -> None:
        self.tokens = tokens
        self._clock = clock
        self._day = clock() // DAY
        self._spent = 0

    def spend(self, tokens: int) -> None:
        """A query has cost so many."""
        self._turn()
        self._spent += tokens

    def wait(self) -> float | None:
        """Seconds until there are tokens again; None while there are some."""
        self._turn()
        if self.tokens is None or self._spent < self.tokens:
            return None
        return (self._day + 1) * DAY - self._clock()

    @property
    def spent(self) -> tuple[int, int]:
        """The day, counted from 1970, and what was spent in it."""
        self._turn()
        return int(self._day), self._spent

    def go_on(self, day: int, spent: int) -> None:
        """Count what was spent before; that of another day is forgotten."""
        self._turn()
        if day == self._day:
            self._spent += spent

    def _turn(self) -> None:
        day = self._clock() // DAY
        if day != self._day:
            self._day, self._spent = day, 0
