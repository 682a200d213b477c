"""What all systems are measured by: latencies on the idle engine, and the rate it can bear.

Both belong to vanilla self-consistency: the deadline of a class of queries is the SLO scale times
the latency of such a query alone, and rates are factors of vanilla's capacity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from time import monotonic

import numpy as np

from algorithms.program import Event, Generation, Program, Request
from dynasor.bench.arrivals import CHAT, group_of
from dynasor.bench.service import Service
from dynasor.bench.workload import Arrival
from dynasor.errors import EngineError
from dynasor.outcome import Outcome
from dynasor.suites import Query, Suite

RAMP_SHARE = 0.3
"""Part of the saturation run that is not counted, while the batch fills."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Vanilla self-consistency alone and at saturation.

    Attributes:
        unloaded: class -> median latency of such a query alone on the engine, seconds.
        tokens: output tokens of an arrival, mean over classes and chats in their shares.
        tokens_per_second: of the saturated engine; None where it was not measured.
    """

    unloaded: Mapping[str, float]
    tokens: float
    tokens_per_second: float | None

    @property
    def capacity(self) -> float | None:
        """Arrivals a second that vanilla can bear, where it was measured."""
        if self.tokens_per_second is None:
            return None
        return self.tokens_per_second / self.tokens


class TokenMeter:
    """Counts the output tokens of requests that ended; an observer of the runtime."""

    def __init__(self) -> None:
        self.tokens = 0

    def received(self, program: Program, request: Request, event: Event) -> None:
        """Count."""
        if isinstance(event, Generation):
            self.tokens += event.tokens

    def stopped(self, program: Program, outcome: Outcome) -> None:
        """Nothing to count."""


async def measure_unloaded(
    service: Service, suite: Suite, *, chats: float, count: int, progress: Callable[[], None]
) -> tuple[dict[str, float], float]:
    """Median latency of each class alone on the engine, and mean output tokens of an arrival.

    Args:
        service: vanilla, on an idle engine.
        suite: the questions.
        chats: share of plain chats.
        count: queries a class.
        progress: called after each.

    Raises:
        EngineError: if the engine dies or fails a query.
    """
    classes: dict[str, list[Query]] = {}
    for query in suite.queries:
        classes.setdefault(group_of(query), []).append(query)
    shares = {
        name: (1 - chats) * len(members) / len(suite.queries) for name, members in classes.items()
    }
    if chats:
        shares[CHAT] = chats
        classes[CHAT] = list(suite.queries)
    await _alone(service, "warm-up", "query", suite.queries[0])
    unloaded: dict[str, float] = {}
    tokens = 0.0
    for name, members in classes.items():
        outcomes = []
        for number, query in enumerate(spread(members, count)):
            kind = "chat" if name == CHAT else "query"
            outcomes.append(await _alone(service, f"{name}-{number}", kind, query))
            progress()
        unloaded[name] = float(np.median([outcome.seconds for outcome in outcomes]))
        tokens += shares[name] * float(np.mean([outcome.bill.output for outcome in outcomes]))
    return unloaded, tokens


def spread(queries: Sequence[Query], count: int) -> list[Query]:
    """At most `count` of the queries, from all over their order."""
    step = max(1, len(queries) // count)
    return list(queries[::step][:count])


async def _alone(service: Service, name: str, kind: str, query: Query) -> Outcome:
    outcome = await service.answer(_arrival(f"alone-{name}", kind, query))
    if outcome.reason == "failed":
        raise EngineError(f"the engine failed {query.id!r}: {'; '.join(outcome.errors)}")
    return outcome


def _arrival(name: str, kind: str, query: Query) -> Arrival:
    return Arrival(
        id=name,
        time=0.0,
        question=query.id,
        kind="chat" if kind == "chat" else "query",
        group=group_of(query),
        deadline=None,
    )


async def measure_throughput(
    service: Service, meter: TokenMeter, suite: Suite, *, fill: int, samples: int, seconds: float
) -> float:
    """Output tokens a second with twice as many requests as the batch holds, in a closed loop.

    Args:
        service: vanilla, observed by `meter`.
        meter: counts.
        suite: the questions.
        fill: requests that the engine runs at once.
        samples: of a query.
        seconds: of the measurement; its first part is not counted.
    """
    queries = cycle(enumerate(suite.queries))

    async def keep_asking(worker: int) -> None:
        for turn in range(10**9):
            _, query = next(queries)
            await service.answer(_arrival(f"full-{worker}-{turn}", "query", query))

    workers = [
        asyncio.create_task(keep_asking(worker)) for worker in range(ceil(2 * fill / samples))
    ]
    try:
        done, _ = await asyncio.wait(workers, timeout=RAMP_SHARE * seconds)
        begin, before = monotonic(), meter.tokens
        if not done:
            done, _ = await asyncio.wait(
                workers, timeout=(1 - RAMP_SHARE) * seconds, return_when=asyncio.FIRST_COMPLETED
            )
        for task in done:  # they end only by an error
            task.result()
        rate = (meter.tokens - before) / (monotonic() - begin)
    finally:
        for task in workers:
            task.cancel()
        for task in workers:
            with suppress(asyncio.CancelledError, EngineError):
                await task
    if rate <= 0:
        raise EngineError(f"the engine ended no request in {seconds:g} s; give --rates")
    return rate
