"""Who gets the next sample, and which query has had enough.

Two allocators. `PerQuery` asks a stop rule about each query alone. `GlobalBudget` has one budget of
tokens for a whole batch and gives the next sample to the query where a token most probably changes
the answer for the better.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Literal, NamedTuple, Protocol

from algorithms.program import Program
from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.room import Room

StopReason = Literal["certain", "hopeless", "budget", "deadline", "complete"]

ValueFunction = Callable[[Votes], float]
"""Expected gain in accuracy a token of more samples, from the votes so far; see certaindex.value."""


@dataclass(slots=True)
class TokenBill:
    """Tokens that a query cost.

    Attributes:
        finished: output tokens of requests that ran to their end and counted.
        cut: output tokens of the others: aborted, failed, or ended after the decision.
        prompt: prompt tokens over all requests, cached ones included.
        cached: of those, tokens whose KV the engine already held.
    """

    finished: int = 0
    cut: int = 0
    prompt: int = 0
    cached: int = 0

    @property
    def output(self) -> int:
        """All output tokens: what the comparison of methods counts."""
        return self.finished + self.cut


@dataclass(slots=True)
class LiveQuery:
    """A query in the runtime: its program, what runs, what it cost.

    Attributes:
        program: that is at work.
        in_flight: ids of its requests that run.
        following: those of them that follow from work already granted, and so count in no wave.
        bill: tokens so far.
        stopping: whether it was stopped.
        late: whether its answer was due: the best one so far is wanted now.
    """

    program: Program
    in_flight: set[str] = field(default_factory=set)
    following: set[str] = field(default_factory=set)
    bill: TokenBill = field(default_factory=TokenBill)
    stopping: bool = False
    late: bool = False


class Grant(NamedTuple):
    """Leave for a query to start so many more requests."""

    query: LiveQuery
    requests: int


class Allocator(Protocol):
    """Decides; the runtime carries out. All methods are synchronous and cost microseconds."""

    def admit(self, query: LiveQuery) -> None:
        """A query has come."""
        ...

    def review(self, query: LiveQuery) -> StopReason | None:
        """A query has news (it was admitted, a request ended): stop it, or None to go on."""
        ...

    def grants(self) -> list[Grant]:
        """What to start now; called after each review."""
        ...

    def spent(self) -> list[LiveQuery]:
        """Queries that wait and will get nothing more, for the budget is used up."""
        ...

    def release(self, query: LiveQuery) -> None:
        """A query has stopped."""
        ...


class PerQuery:
    """A stop rule for each query alone, and at most `wave` of its requests in flight.

    A larger wave answers sooner and costs more: when the query stops, what is in flight is cut.

    Args:
        rule: says when a query has had enough.
        wave: requests of a query in flight.
        tokens: output tokens after which a query gets no more requests, or None; what it has in
            flight then may exceed them.
        room: of the engine, shared by all who use it; None where nobody asks for it.
        fills: whether a query may have more in flight than its wave while there is room.
    """

    def __init__(
        self,
        rule: StopRule,
        wave: int,
        *,
        tokens: int | None = None,
        room: Room | None = None,
        fills: bool = True,
    ) -> None:
        if wave < 1:
            raise ValueError(f"wave must be 1 or more, not {wave}")
        self._rule = rule
        self._wave = wave
        self._tokens = tokens
        self._room = Room(0) if room is None else room
        self._fills = fills
        self._news: list[LiveQuery] = []

    def admit(self, query: LiveQuery) -> None:
        """Nothing to keep: the votes hold all that the rule needs."""

    def review(self, query: LiveQuery) -> StopReason | None:
        """Ask the rule."""
        self._room.take(query.program.id, len(query.in_flight))
        if not query.in_flight and query.program.remaining() == 0:
            return "complete"
        votes = query.program.votes()
        if votes.n:
            stop = self._rule.decide(votes).stop
            if stop is not None:
                return stop
        if self._tokens is not None and query.bill.output >= self._tokens:
            return "budget"
        self._news.append(query)
        return None

    def grants(self) -> list[Grant]:
        """Fill up the waves of the queries that were reviewed."""
        news, self._news = self._news, []
        return [
            Grant(query, free)
            for query in news
            if not query.stopping and (free := self._free(query)) > 0
        ]

    def _free(self, query: LiveQuery) -> int:
        """Requests that a query may start now."""
        running = len(query.in_flight)
        free = self.wave_of(query) - running + len(query.following)
        if self._fills:
            free = max(free, self._room.spare)
        self._room.take(query.program.id, running + min(free, query.program.remaining()))
        return free

    def wave_of(self, query: LiveQuery) -> int:
        """Samples that a query should have in flight now, if there is no room for more."""
        return self._wave

    def spent(self) -> list[LiveQuery]:
        """None: each query has a budget of its own."""
        return []

    def release(self, query: LiveQuery) -> None:
        """Give back its places."""
        self._room.leave(query.program.id)


class GlobalBudget:
    """One budget of output tokens for all queries.

    Each query gets one sample first. From then on the next sample goes where its value is
    largest, one at a time for each query, since what the last one said decides what the next is
    worth. A query whose value is zero is certain. What runs when the budget is used up is let end,
    so the budget is exceeded by at most what is then in flight.

    Args:
        tokens: the budget, output tokens.
        value: of one more sample, see `certaindex.value`.
        slots: requests in flight over all queries.
    """

    def __init__(self, tokens: int, value: ValueFunction, *, slots: int) -> None:
        if tokens < 1 or slots < 1:
            raise ValueError(f"tokens and slots must be 1 or more, not {tokens} and {slots}")
        self._left = tokens
        self._value = value
        self._slots = slots
        self._waiting: list[tuple[float, int, LiveQuery]] = []  # heap, best value first
        self._order = count()
        self._running: set[str] = set()
        self._billed: dict[str, int] = {}

    def admit(self, query: LiveQuery) -> None:
        """Start its account."""
        self._billed[query.program.id] = 0

    def review(self, query: LiveQuery) -> StopReason | None:
        """Take what was spent from the budget, and see whether more would help."""
        name, votes = query.program.id, query.program.votes()
        self._left -= query.bill.output - self._billed[name]
        self._billed[name] = query.bill.output
        if query.in_flight:
            return None
        self._running.discard(name)
        if query.program.remaining() == 0:
            return "complete"
        if votes.n == 0:
            value = inf  # a query without any sample comes before all others
        elif self._left <= 0:
            return "budget"
        else:
            value = self._value(votes)
            if value <= 0:
                return "certain"
        heapq.heappush(self._waiting, (-value, next(self._order), query))
        return None

    def grants(self) -> list[Grant]:
        """Fill the free slots, best value first; queries without any sample whatever is left."""
        granted = []
        while self._waiting and len(self._running) < self._slots:
            if self._left <= 0 and self._waiting[0][0] > -inf:
                break
            _, _, query = heapq.heappop(self._waiting)
            if not query.stopping:
                self._running.add(query.program.id)
                granted.append(Grant(query, 1))
        return granted

    def spent(self) -> list[LiveQuery]:
        """Queries that wait for a grant which the used-up budget will never give."""
        if self._left > 0:
            return []
        return [
            query for _, _, query in self._waiting if query.program.votes().n and not query.stopping
        ]

    def release(self, query: LiveQuery) -> None:
        """Free its slot."""
        self._running.discard(query.program.id)
