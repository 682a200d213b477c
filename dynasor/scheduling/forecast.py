"""How much work a query has left, seen from its votes: what the allocator tells the scheduler.

Expected remaining tokens = samples until the stop rule will fire x tokens of a sample. The first factor
is foreseen by `dynasor.scheduling.further_samples`. The second is what the query's samples say, finished
ones and those that run, on a prior from its prompt's rank or from all queries
(`dynasor.ranking.siblings`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from math import log
from typing import cast

from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.ranking.length_prior import LengthPrior, PriorLearner
from dynasor.ranking.ranked import Ranked
from dynasor.ranking.siblings import Remaining, SiblingLengths
from dynasor.scheduling.further_samples import FurtherSamples, HashableRule, QuerySamples


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
        self._further = FurtherSamples(cast(HashableRule, rule) if play else None)
        self._weight = 1.0

    def weighted(self, weight: float) -> Forecast:
        """This forecast, for queries of such a weight in the scheduler's order; both learn together."""
        twin = copy(self)
        twin._weight = weight
        return twin

    def query(self, ranked: Ranked | None = None) -> QueryForecast:
        """The forecast of a new query.

        Args:
            ranked: what its prompt says; None for what all queries so far say.
        """
        prior = self._unranked if ranked is None else ranked.lengths
        learner = self._learners[ranked is not None]
        samples = QuerySamples(self._further, None if ranked is None else ranked.prompt)
        lengths = SiblingLengths(learner.set_right(prior), self._limit)
        return QueryForecast(samples, lengths, prior, learner, self._weight)


class QueryForecast:
    """Foresees the rest of one query; made by `Forecast.query`.

    Attributes:
        weight: of the query against others, None for that of most.
    """

    def __init__(
        self,
        samples: QuerySamples,
        lengths: SiblingLengths,
        prior: LengthPrior,
        learner: PriorLearner,
        weight: float,
    ) -> None:
        self.weight = None if weight == 1.0 else weight
        self._samples = samples
        self._lengths = lengths
        self._prior = prior
        self._learner = learner

    def sample_ended(self, tokens: int, *, cut: bool = False) -> None:
        """A sample has ended by itself with so many output tokens, or was `cut` by a limit."""
        self._lengths.ended(tokens, cut=cut)

    def remaining(self, votes: Votes, running: Sequence[int] = ()) -> Remaining:
        """Output tokens until the rule stops the query, of samples that run too.

        Args:
            votes: so far.
            running: tokens so far of each sample that runs; 0 where not known.
        """
        return self._lengths.remaining(running, *self._samples.expected(votes))

    def ended(self, votes: Votes, *, by_rule: bool = True) -> None:
        """The query was stopped with these votes, by the rule or its budget or for another reason."""
        self._lengths.teach(self._learner, self._prior)
        if by_rule:
            self._samples.ended(votes)
