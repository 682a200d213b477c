"""How much work a query has left, seen from its votes: what the allocator tells the scheduler.

Expected remaining tokens = samples until the stop rule will fire x tokens of a sample. The first
factor comes from playing the rule on with votes like those so far; the second from the query's
finished samples, drawn towards the mean of all queries while there are few.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from random import Random
from typing import NamedTuple, Protocol, cast

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

    def mean_tokens(self, votes: Votes) -> float:
        """Expected output tokens of a sample of a query with these votes."""
        return (votes.total_tokens + _PRIOR_SAMPLES * self._tokens) / (votes.n + _PRIOR_SAMPLES)

    def remaining_tokens(self, votes: Votes) -> float:
        """Expected output tokens until the rule stops the query, of samples in flight too."""
        mean = self.mean_tokens(votes)
        if votes.n == 0 and self._samples is not None:
            samples = min(self._samples, votes.max_samples)
        else:
            samples = samples_to_come(self._rule, standing_of(votes), votes.max_samples)
        # What is in flight when the rule fires was begun in vain, but is cut at once.
        return mean * min(max(samples, 1.0), max(votes.remaining, 1))


class Standing(NamedTuple):
    """What a forecast looks at: the two heaviest answers.

    Attributes:
        first, second: their votes.
        n: finished samples, with and without an answer.
        first_weight, second_weight: of one vote for them, in quarters.
    """

    first: int
    second: int
    n: int
    first_weight: float = 1.0
    second_weight: float = 1.0


def standing_of(votes: Votes) -> Standing:
    """The standing of some votes."""
    heaviest = sorted(range(len(votes.counts)), key=votes.weights.__getitem__, reverse=True)
    counts = [votes.counts[group] for group in heaviest[:2]] + [0, 0]
    weights = [_quarters(votes.weights[g] / votes.counts[g]) for g in heaviest[:2]] + [1.0, 1.0]
    return Standing(counts[0], counts[1], votes.n, weights[0], weights[1])


def _quarters(weight: float) -> float:
    """Rounded, so that few standings differ."""
    return max(0.25, round(4 * weight) / 4)


@lru_cache(maxsize=65536)
def samples_to_come(rule: HashableRule, standing: Standing, max_samples: int) -> float:
    """Expected samples until a rule stops a query.

    The shares of the leader, the runner-up and all others are drawn from their Dirichlet posterior
    (weights 1/2), votes from these shares, and the rule is asked after each: the mean over `PATHS`
    continuations. An answer among the others is taken for a new one each time.

    Args:
        rule: the stop rule.
        standing: of the votes so far.
        max_samples: the full budget.
    """
    first, second, n = standing[:3]
    if n >= max_samples:
        return 0.0
    random = Random(first * 1_000_003 + second * 1_009 + n)  # same state, same forecast
    total = 0
    for _ in range(PATHS):
        total += _play(rule, standing, max_samples, random)
    return total / PATHS


def _votes_like(standing: Standing, max_samples: int) -> Votes:
    votes = Votes(max_samples=max_samples)
    for _ in range(standing.first):
        votes.add(0, 0, standing.first_weight)
    for _ in range(standing.second):
        votes.add(1, 0, standing.second_weight)
    for _ in range(standing.n - standing.first - standing.second):
        votes.add(len(votes.counts) if standing.second else None, 0, standing.second_weight)
    return votes


def _play(rule: StopRule, standing: Standing, max_samples: int, random: Random) -> int:
    """Samples of one continuation until the rule stops it, or the budget does."""
    votes = _votes_like(standing, max_samples)
    counts = (standing.first, standing.second, standing.n - standing.first - standing.second)
    weights = (standing.first_weight, standing.second_weight, standing.second_weight)
    shares = [random.gammavariate(count + 0.5, 1.0) for count in counts]
    whole = sum(shares)
    come = 0
    while votes.remaining:
        draw = random.random() * whole
        group = 0 if draw < shares[0] else 1 if draw < shares[0] + shares[1] else 2
        answer = min(group, len(votes.counts)) if group < 2 else len(votes.counts)
        votes.add(answer, 0, weights[group])
        come += 1
        if rule.decide(votes).stop is not None:
            break
    return come
