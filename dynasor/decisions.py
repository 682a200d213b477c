"""What to do next with queries, decided apart from doing it: the same for every loop that runs them.

The runtime carries the decisions out on an engine (`dynasor.runtime`), the online benchmark on
simulated replicas in virtual time (`dynasor.bench.virtual_front_end`). A loop carries out each decision
before it asks for the next one, for that may rest on what has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from algorithms.program import Request
from dynasor.allocator import Allocator, LiveQuery, StopReason

AHEAD = 0.05
"""Part of the time until an answer is due that is kept for cutting a query and sending its answer."""


class Start(NamedTuple):
    """Start a request of a query."""

    query: LiveQuery
    request: Request


class Cut(NamedTuple):
    """Cut those of these requests that run; their query goes on."""

    query: LiveQuery
    requests: list[str]


class Stop(NamedTuple):
    """Stop a query, unless it was stopped before; whatever it runs is cut."""

    query: LiveQuery
    reason: StopReason


class Hint(NamedTuple):
    """Tell the engine's scheduler what a query has left to do."""

    query: LiveQuery


Decision = Start | Cut | Stop | Hint


def review(query: LiveQuery, allocator: Allocator) -> Iterator[Decision]:
    """A query was admitted, or a request of it has ended: what it and all others are to do now."""
    if not query.stopping:
        # What follows is started first, so that what waits for a reward is not held to be complete.
        yield from watch(query)
    if not query.stopping:
        reason = allocator.review(query)
        if reason is None and _answers_late(query):
            reason = "deadline"
        yield Hint(query) if reason is None else Stop(query, reason)
    for granted, count in allocator.grants():
        requests = granted.program.propose(count)
        for request in requests:
            yield Start(granted, request)
        yield from _follow(granted)
        if not requests and not granted.in_flight:
            yield Stop(granted, "complete")  # nothing is left to try
    for idle in allocator.spent():
        yield Stop(idle, "budget")


def watch(query: LiveQuery) -> Iterator[Decision]:
    """Running requests of a query have news: which of them are useless, and what follows from them."""
    if useless := query.program.cancelled():
        yield Cut(query, useless)
    if not query.stopping:  # what was cut may have been the last that it waited for
        yield from _follow(query)


def press(query: LiveQuery) -> Iterator[Decision]:
    """The answer is due: the best one so far will do, or else the first."""
    query.late = True
    if _answers_late(query):
        yield Stop(query, "deadline")


def _answers_late(query: LiveQuery) -> bool:
    return query.late and query.program.votes().n > 0


def _follow(query: LiveQuery) -> Iterator[Decision]:
    """Start what follows from the work that runs."""
    for request in query.program.follow_ups():
        query.following.add(request.id)
        yield Start(query, request)
