"""An allocator whose wave is what a query will probably need.

A larger wave answers sooner and is paid with samples that are cut, or end in vain, when the query
stops. So a query first gets as many samples as its rule asks for at least, and after each answer as
many as the rule is expected to ask for yet: a clear question is answered in one round, an unclear one
in few. What does not fit into the engine waits there, where the order of the queries decides.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from certaindex.votes import Votes
from dynasor.allocator import LiveQuery, PerQuery
from dynasor.room import Room
from dynasor.scheduling.further_samples import HashableRule, samples_to_come, standing_of


class ForecastWave(PerQuery):
    """A stop rule for each query alone, with a wave by forecast.

    Args:
        rule: when a query stops.
        room: of the engine, see `PerQuery`.
    """

    def __init__(self, rule: HashableRule, *, room: Room | None = None) -> None:
        super().__init__(rule, wave=1, room=room)
        self._asks = rule

    def wave_of(self, query: LiveQuery) -> int:
        """Samples that it should have in flight now, if there is no room for more."""
        return wanted(self._asks, query.program.votes())


def wanted(rule: HashableRule, votes: Votes) -> int:
    """Samples that the rule is expected to ask for yet; before any, the fewest that can stop it."""
    if votes.n == 0:
        return fewest(rule, votes.max_samples)
    return max(1, ceil(samples_to_come(rule, standing_of(votes), votes.max_samples)))


@lru_cache(maxsize=1024)
def fewest(rule: HashableRule, max_samples: int) -> int:
    """Samples after which the rule stops a query whose answers all agree."""
    votes = Votes(max_samples=max_samples)
    while votes.n < max_samples:
        votes.add(0, 0)
        if rule.decide(votes).stop is not None:
            break
    return votes.n
