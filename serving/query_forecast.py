"""How much work a query has left, as the scheduler is told it: by its priority, and never dearly.

The scheduler serves the least expected work first, so a query whose work is divided by its weight stands
where the shortest weighted processing time would put it (Smith, 1956).

A forecast plays the stop rule on, which takes milliseconds for votes that it has not seen before. The
rules of the configuration are few and soon all known; those that clients bring could keep the server
busy with it, so for them the rest of the full budget counts.
"""

from __future__ import annotations

from certaindex.votes import Votes
from dynasor.scheduling.forecast import Forecast


def weighted(tokens: float, priority: int) -> float:
    """Expected tokens as the scheduler is told them: half for each step up."""
    return float(tokens * 0.5**priority)


class QueryForecast(Forecast):
    """The forecast of all queries with a rule, as one of them tells it to the scheduler.

    Args:
        shared: learns from all queries.
        priority: of this one.
        play: whether to play the rule on; else the rest of the full budget counts.
    """

    def __init__(self, shared: Forecast, priority: int, *, play: bool) -> None:
        self._shared = shared
        self._priority = priority
        self._play = play

    def sample_ended(self, tokens: int) -> None:
        """All queries learn from it."""
        self._shared.sample_ended(tokens)

    def query_ended(self, votes: Votes) -> None:
        """All queries learn from it."""
        self._shared.query_ended(votes)

    def remaining_tokens(self, votes: Votes) -> float:
        """Of this query, by its priority."""
        if self._play:
            tokens = self._shared.remaining_tokens(votes)
        else:
            tokens = self._shared.mean_tokens(votes) * max(votes.remaining, 1)
        return weighted(tokens, self._priority)
