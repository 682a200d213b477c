"""What a client's priority means to the scheduler: work that counts for less.

The scheduler serves the least expected work first, so a query whose work is divided by its weight
stands where the shortest weighted processing time would put it (Smith, 1956).
"""

from __future__ import annotations

from certaindex.votes import Votes
from dynasor.scheduling.forecast import Forecast


def weighted(tokens: float, priority: int) -> float:
    """Expected tokens as the scheduler is told them: half for each step up."""
    return float(tokens * 0.5**priority)


class WeightedForecast(Forecast):
    """The forecast of all queries, as one of them tells it to the scheduler.

    Args:
        shared: learns from all queries.
        priority: of this one.
    """

    def __init__(self, shared: Forecast, priority: int) -> None:
        self._shared = shared
        self._priority = priority

    def sample_ended(self, tokens: int) -> None:
        """All queries learn from it."""
        self._shared.sample_ended(tokens)

    def query_ended(self, votes: Votes) -> None:
        """All queries learn from it."""
        self._shared.query_ended(votes)

    def remaining_tokens(self, votes: Votes) -> float:
        """Of this query, by its priority."""
        return weighted(self._shared.remaining_tokens(votes), self._priority)
