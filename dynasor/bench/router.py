"""Which replica a new query goes to: the one with the least work to come."""

from __future__ import annotations

from collections.abc import Sequence

from dynasor.bench.virtual_query import VirtualQuery

GUESS = 500.0
"""Tokens of a sample before any has ended."""


class Router:
    """Counts the output tokens that the queries of each replica are expected to need yet.

    Args:
        replicas: how many.
    """

    def __init__(self, replicas: int) -> None:
        self._load = [0.0] * replicas
        self._typical = GUESS
        self._ended = 0

    def admit(self, query: VirtualQuery) -> None:
        """Choose the replica of a new query."""
        query.replica = min(range(len(self._load)), key=self._load.__getitem__)
        self.expect(query)

    def expect(self, query: VirtualQuery, running: Sequence[int] = ()) -> None:
        """Note how many tokens a query will still need.

        Args:
            query: that has news.
            running: tokens so far of each of its samples that runs, where there is a forecast.
        """
        votes = query.program.votes()
        if query.forecast is not None:
            expected = query.forecast.remaining(votes, running).tokens
        else:
            expected = votes.remaining * self._typical
        self._load[query.replica] += expected - query.expected
        query.expected = expected

    def ended(self, tokens: int) -> None:
        """A sample of a query without a forecast has ended with so many tokens."""
        self._ended += 1
        self._typical += (tokens - self._typical) / self._ended

    def release(self, query: VirtualQuery) -> None:
        """A query has stopped."""
        self._load[query.replica] -= query.expected
