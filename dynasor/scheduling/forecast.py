"""How much work a query has left, seen from its votes: what the allocator tells the scheduler.

Expected remaining tokens = samples until the stop rule will fire x tokens of a sample. The first factor
comes from playing the rule on with votes like those so far, and from how many more samples queries with
such votes took that have ended. The second is what the query's samples say, finished ones and those that
run, on a prior from its prompt's rank or from all queries (`dynasor.ranking.siblings`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from copy import copy
from functools import lru_cache
from math import log
from random import Random
from typing import NamedTuple, Protocol, cast

from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.ranking.length_prior import LengthPrior, PriorLearner
from dynasor.ranking.siblings import Remaining, SiblingLengths

PATHS = 32
"""Continuations that are played for one state of the votes."""
REMEMBERED = 65536
"""States of votes whose continuations are kept."""
_PLAYED = 4.0  # weight of a played forecast, in queries that came through the same state
_MEMORY = 500  # queries that the means look back on


class HashableRule(StopRule, Hashable, Protocol):
    """A stop rule that is a value, as all of ours are."""


class Forecast:
    """Learns what samples and queries take as they end, and foresees the rest of each query.

    Args:
        rule: that stops the queries.
        tokens: of a sample, before any has ended.
        limit: output tokens at which a sample is cut, None for none.
        play: whether to play the rule on, which takes milliseconds for votes that were not seen before;
            else the rest of the full budget counts until queries with such votes have ended.
    """

    def __init__(
        self,
        rule: StopRule,
        tokens: float = 500.0,
        limit: int | None = None,
        *,
        play: bool = True,
    ) -> None:
        if not isinstance(rule, Hashable):
            raise TypeError(f"{rule!r} must be hashable: forecasts are kept by rule")
        self._limit = limit
        self._unranked = LengthPrior(log(max(tokens, 1.0)))
        self._learners = PriorLearner(), PriorLearner()  # of queries without a rank, and with one
        self._further = _FurtherSamples(cast(HashableRule, rule) if play else None)
        self._weight = 1.0

    def weighted(self, weight: float) -> Forecast:
        """This forecast, for queries of such a weight in the scheduler's order; both learn together."""
        twin = copy(self)
        twin._weight = weight
        return twin

    def query(self, ranked: LengthPrior | None = None) -> QueryForecast:
        """The forecast of a new query.

        Args:
            ranked: its lengths by the rank of its prompt; None for those of all queries so far.
        """
        prior = self._unranked if ranked is None else ranked
        learner = self._learners[ranked is not None]
        return QueryForecast(prior, learner, self._further, self._limit, self._weight)


class QueryForecast:
    """Foresees the rest of one query; made by `Forecast.query`.

    Attributes:
        weight: of the query against others, None for that of most.
    """

    def __init__(
        self,
        prior: LengthPrior,
        learner: PriorLearner,
        further: _FurtherSamples,
        limit: int | None,
        weight: float,
    ) -> None:
        self.weight = None if weight == 1.0 else weight
        self._prior = prior
        self._learner = learner
        self._further = further
        self._lengths = SiblingLengths(learner.set_right(prior), limit)
        self._passed: dict[int, Standing] = {}  # finished samples -> the votes then

    def sample_ended(self, tokens: int, *, cut: bool = False) -> None:
        """A sample has ended by itself with so many output tokens, or was `cut` by a limit."""
        self._lengths.ended(tokens, cut=cut)

    def remaining(self, votes: Votes, running: Sequence[int] = ()) -> Remaining:
        """Output tokens until the rule stops the query, of samples that run too.

        Args:
            votes: so far.
            running: tokens so far of each sample that runs; 0 where not known.
        """
        standing = standing_of(votes)
        self._passed[votes.n] = standing
        samples, variance = self._further.expected(standing, votes.max_samples)
        samples = min(max(samples, 1.0), max(votes.remaining, 1))
        return self._lengths.remaining(running, samples, variance)

    def ended(self, votes: Votes, *, by_rule: bool = True) -> None:
        """The query was stopped with these votes, by the rule or its budget or for another reason."""
        self._lengths.teach(self._learner, self._prior)
        for n, standing in self._passed.items():
            if by_rule and n < votes.n:
                self._further.learn(standing, votes.max_samples, votes.n - n)


class _Mean:
    """A running mean of the last so many values, and of a first guess with a weight."""

    def __init__(self, guess: float, weight: float) -> None:
        self.value = guess
        self._count = weight

    def learn(self, value: float) -> None:
        self._count = min(self._count + 1, _MEMORY)
        self.value += (value - self.value) / self._count


class _FurtherSamples:
    """How many more samples queries take, by their votes so far: played first, then as it was.

    Args:
        rule: that is played; None for none, then all that is left of the budget is the first guess.
    """

    def __init__(self, rule: HashableRule | None) -> None:
        self._rule = rule
        self._known: OrderedDict[tuple[Standing, int], tuple[_Mean, _Mean]] = OrderedDict()

    def expected(self, standing: Standing, max_samples: int) -> tuple[float, float]:
        """Mean and variance of the number."""
        mean, square = self._of(standing, max_samples)
        return mean.value, max(square.value - mean.value**2, 0.0)

    def learn(self, standing: Standing, max_samples: int, further: int) -> None:
        """A query with these votes took so many more."""
        mean, square = self._of(standing, max_samples)
        mean.learn(further)
        square.learn(further**2)

    def _of(self, standing: Standing, max_samples: int) -> tuple[_Mean, _Mean]:
        key = standing, max_samples
        known = self._known.get(key)
        if known is None:
            played = float(max_samples - standing.n)
            if self._rule is not None:
                played = samples_to_come(self._rule, standing, max_samples)
            # Played continuations are spread about as widely as an exponential distribution.
            known = self._known[key] = _Mean(played, _PLAYED), _Mean(2 * played**2, _PLAYED)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known


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
