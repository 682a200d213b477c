"""How the last queries of a class fared, for those who run the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

RECENT = 500
"""Answers that are looked back on."""
WINDOW = 60.0
"""Seconds over which the rate of arrivals is counted."""
MOST_ARRIVALS = 10_000


class _Answer(NamedTuple):
    in_time: bool
    tokens: int
    at_deadline: bool


class RecentQueries:
    """The last answers of a class, and the arrivals of the last minute.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._arrivals: deque[float] = deque(maxlen=MOST_ARRIVALS)
        self._answers: deque[_Answer] = deque(maxlen=RECENT)

    def came(self) -> None:
        """A query has come, be it served or refused."""
        self._arrivals.append(self._clock())

    def answered(self, *, in_time: bool, tokens: int, at_deadline: bool) -> None:
        """A query has its answer.

        Args:
            in_time: whether it met the hardest latency target.
            tokens: output tokens that it cost.
            at_deadline: whether its deadline, and not its rule, ended it.
        """
        self._answers.append(_Answer(in_time, tokens, at_deadline))

    @property
    def rate(self) -> float:
        """Queries that came a second, over the last minute or since the beginning."""
        now = self._clock()
        forgotten = len(self._arrivals) == MOST_ARRIVALS
        while self._arrivals and self._arrivals[0] < now - WINDOW:
            self._arrivals.popleft()
            forgotten = False
        if not self._arrivals:
            return 0.0
        since = self._arrivals[0] if forgotten else max(self._begun, now - WINDOW)
        return len(self._arrivals) / max(now - since, 1.0)

    @property
    def attained(self) -> float:
        """Share that met the hardest latency target; 1 before the first answer."""
        return self._mean([each.in_time for each in self._answers], 1.0)

    @property
    def tokens(self) -> float | None:
        """Mean output tokens of a query; None before the first answer."""
        return self._mean([each.tokens for each in self._answers], 0.0) if self._answers else None

    @property
    def at_deadline(self) -> float:
        """Share of the answers that a deadline cut; the promise of the loss does not cover them."""
        return self._mean([each.at_deadline for each in self._answers], 0.0)

    @staticmethod
    def _mean(values: list[bool] | list[int], without: float) -> float:
        return sum(values) / len(values) if values else without
