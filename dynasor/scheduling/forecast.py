"""How much work a query has left, seen from its votes: what the allocator tells the scheduler.

Expected remaining tokens = samples until the stop rule will fire x tokens of a sample. The first
factor comes from playing the rule on with votes like those so far; the second from the query's
finished samples, drawn towards the mean of all queries while there are few.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from random import Random
from typing import Protocol, cast

from certaindex.stopping import StopRule
from certaindex.votes import Votes

PATHS = 32
"""Continuations that are played for one state of the votes."""
_PRIOR_SAMPLES = 1.0  # weight of the mean of all queries, in samples
_MEMORY = 500  # ended samples, queries that the means look back on


class HashableRule(StopRule, Hashable, Protocol):
    """A stop rule that is a value, as all of ours are."""


class Forecast:
    """Learns what samples and queries take as they end, and foresees the rest of a query.

    Args:
        rule: that stops the queries.
        tokens: of a sample, before any has ended.
    """

    def __init__(self, rule: StopRule, tokens: float = 500.0) -> None:
        if not isinstance(rule, Hashable):
            raise TypeError(f"{rule!r} must be hashable: forecasts are kept by rule")
        self._rule = cast(HashableRule, rule)
        self._tokens = tokens
        self._samples: float | None = None
        self._ended = [0, 0]

    def sample_ended(self, tokens: int) -> None:
        """A sample ran to its end with so many output tokens."""
        self._ended[0] += 1
        self._tokens += (tokens - self._tokens) / min(self._ended[0], _MEMORY)

    def query_ended(self, votes: Votes) -> None:
        """A query was stopped with these votes."""
        self._ended[1] += 1
        before = votes.n if self._samples is None else self._samples
        self._samples = before + (votes.n - before) / min(self._ended[1], _MEMORY)

    def remaining_tokens(self, votes: Votes) -> float:
        """Expected output tokens until the rule stops the query, of samples in flight too."""
        mean = (votes.total_tokens + _PRIOR_SAMPLES * self._tokens) / (votes.n + _PRIOR_SAMPLES)
        if votes.n == 0 and self._samples is not None:
            samples = min(self._samples, votes.max_samples)
        else:
            first, second = votes.top_two()
            samples = samples_to_come(self._rule, first, second, votes.n, votes.max_samples)
        # What is in flight when the rule fires was begun in vain, but is cut at once.
        return mean * min(max(samples, 1.0), max(votes.remaining, 1))


@lru_cache(maxsize=65536)
def samples_to_come(rule: HashableRule, first: int, second: int, n: int, max_samples: int) -> float:
    """Expected samples until a rule stops a query.

    The shares of the leader, the runner-up and all others are drawn from their Dirichlet posterior
    (weights 1/2), votes from these shares, and the rule is asked after each: the mean over `PATHS`
    continuations. An answer among the others is taken for a new one each time.

    Args:
        rule: the stop rule.
        first: votes of the leader.
        second: votes of the runner-up.
        n: finished samples, with and without an answer.
        max_samples: the full budget.
    """
    if n >= max_samples:
        return 0.0
    random = Random(first * 1_000_003 + second * 1_009 + n)  # same state, same forecast
    total = 0
    for _ in range(PATHS):
        total += _play(rule, _votes_like(first, second, n, max_samples), random)
    return total / PATHS


def _votes_like(first: int, second: int, n: int, max_samples: int) -> Votes:
    votes = Votes(max_samples=max_samples)
    for _ in range(first):
        votes.add(0, 0)
    for _ in range(second):
        votes.add(1, 0)
    for _ in range(n - first - second):
        votes.add(len(votes.counts) if second else None, 0)
    return votes


def _play(rule: StopRule, votes: Votes, random: Random) -> int:
    """Samples of one continuation until the rule stops it, or the budget does."""
    first, second = votes.top_two()
    counts = (first, second, votes.n - first - second)
    shares = [random.gammavariate(count + 0.5, 1.0) for count in counts]
    whole = sum(shares)
    come = 0
    while votes.remaining:
        draw = random.random() * whole
        group = 0 if draw < shares[0] else 1 if draw < shares[0] + shares[1] else 2
        votes.add(min(group, len(votes.counts)) if group < 2 else len(votes.counts), 0)
        come += 1
        if rule.decide(votes).stop is not None:
            break
    return come
