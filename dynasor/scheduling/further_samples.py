"""How many more samples a query takes until a stop rule fires, by its votes so far.

First from playing the rule on with votes like those; then from how many more samples queries took that
had the same votes and have ended; and, where the prompt is known, from what queries with prompts like it
took (`dynasor.scheduling.samples_by_prompt`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache
from math import log
from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.ranking.running_line import MEMORY
from dynasor.scheduling.samples_by_prompt import SamplesByPrompt

PATHS = 32
"""Continuations that are played for one state of the votes."""
REMEMBERED = 65536
"""States of votes whose continuations are kept."""
_PLAYED = 4.0  # weight of a played forecast, in queries that came through the same state


class HashableRule(StopRule, Hashable, Protocol):
    """A stop rule that is a value, as all of ours are."""


class FurtherSamples:
    """Learns from queries as they end.

    Args:
        rule: that is played; None for none, then all that is left of the budget is the first guess.
    """

    def __init__(self, rule: HashableRule | None) -> None:
        self._rule = rule
        self._known: OrderedDict[tuple[Standing, int], _Known] = OrderedDict()
        self.by_prompt = SamplesByPrompt()

    def after(self, standing: Standing, max_samples: int) -> _Known:
        """What is known of queries with such votes."""
        key = standing, max_samples
        known = self._known.get(key)
        if known is None:
            played = float(max_samples - standing.n)
            if self._rule is not None:
                played = samples_to_come(self._rule, standing, max_samples)
            known = self._known[key] = _Known(played)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known


class QuerySamples:
    """The further samples of one query.

    Args:
        all_queries: what is known of all.
        prompt: its vector, see `dynasor.ranking.prompt_vector`; None if not known.
    """

    def __init__(self, all_queries: FurtherSamples, prompt: NDArray[np.float32] | None) -> None:
        self._all = all_queries
        self._prompt = prompt
        self._foreseen = 0.0 if prompt is None else all_queries.by_prompt.foresee(prompt)
        self._passed = {0: NO_VOTES}  # finished samples -> the votes then

    def expected(self, votes: Votes) -> tuple[float, float]:
        """Mean and variance of the number that is yet to finish."""
        standing = standing_of(votes)
        self._passed[votes.n] = standing
        known, multiple = self._all.after(standing, votes.max_samples), self._multiple(votes.n)
        mean = min(max(known.mean * multiple, 1.0), max(votes.remaining, 1))
        return mean, known.variance * multiple**2

    def ended(self, votes: Votes) -> None:
        """The rule or the budget has stopped the query with these votes."""
        for n, standing in self._passed.items():
            if n < votes.n:
                self._learn(standing, votes)

    def _multiple(self, finished: int) -> float:
        if self._prompt is None:
            return 1.0
        return self._all.by_prompt.multiple(self._foreseen, finished)

    def _learn(self, standing: Standing, votes: Votes) -> None:
        further = votes.n - standing.n
        known = self._all.after(standing, votes.max_samples)
        multiple = self._multiple(standing.n)
        if self._prompt is not None:
            ratio = log(further / known.mean)
            # Nothing is learnt of the rest before the first sample, so all prompts are alike then: it
            # costs little and tells much, and queries that look hard would be put off without it,
            # which costs all of them near the limit.
            if standing.n == 0:
                self._all.by_prompt.learn_query(self._prompt, ratio)
            else:
                self._all.by_prompt.learn_rest(self._foreseen, standing.n, ratio)
        known.learn(further / multiple)


class _Known:
    """Running mean and variance of the last so many numbers, and of a first guess with a weight."""

    def __init__(self, guess: float) -> None:
        self.mean = guess
        # Played continuations are spread about as widely as an exponential distribution.
        self._square = 2 * guess**2
        self._count = _PLAYED

    @property
    def variance(self) -> float:
        """Of the number."""
        return max(self._square - self.mean**2, 0.0)

    def learn(self, number: float) -> None:
        """One more."""
        self._count = min(self._count + 1, MEMORY)
        self.mean += (number - self.mean) / self._count
        self._square += (number**2 - self._square) / self._count


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


NO_VOTES = Standing(0, 0, 0)
"""Where every query begins."""


def standing_of(votes: Votes) -> Standing:
    """The standing of some votes."""
    heaviest = sorted(range(len(votes.counts)), key=votes.weights.__getitem__, reverse=True)
    counts = [votes.counts[group] for group in heaviest[:2]] + [0, 0]
    weights = [_quarters(votes.weights[g] / votes.counts[g]) for g in heaviest[:2]] + [1.0, 1.0]
    return Standing(counts[0], counts[1], votes.n, weights[0], weights[1])


def _quarters(weight: float) -> float:
    """Rounded, so that few standings differ."""
    return max(0.25, round(4 * weight) / 4)


@lru_cache(maxsize=REMEMBERED)
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
