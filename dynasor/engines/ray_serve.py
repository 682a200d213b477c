"""Engines on Ray Serve, as one engine: requests go to replicas by handle, events come back as a stream.

`GangRouter` chooses the replica. A request whose replica dies, or is ended because it hangs, is run once
more on another: from where its reader was told, or from its beginning. Requests that had finished are
not touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from algorithms.program import Event, Generation, Progress, Request
from dynasor.engines.base import Capacity
from dynasor.engines.going_on import going_on, joined
from dynasor.errors import EngineError
from dynasor.scheduling.authors import Authors
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.latest import LatestHints

logger = logging.getLogger(__name__)

LOST = (RayError, RayServeException, EngineError)
"""What is raised here when a replica is gone, or its engine."""
START = 600.0
"""Seconds that the first replica has to load its model."""
AT_MOST = 5.0
"""Seconds that anything waits for a cut or for news to be delivered, or for a prompt to be measured."""
COUNTED_WITHIN = 1.0
"""Seconds that all replicas have to tell their counters."""


class RayServeEngine:
    """See the module.

    Args:
        handle: of the deployment of `EngineReplica`.
    """

    def __init__(self, handle: Any) -> None:  # ray.serve.handle.DeploymentHandle
        self._handle = handle
        self._capacity = Capacity(1, "unknown", supports_seed=True)
        self._hints = LatestHints()
        self._authors: Authors[str] = Authors()
        self._where: dict[str, str | None] = {}  # requests that run -> their replica, once known
        self._gang_of: dict[str, str] = {}
        self._cut: set[str] = set()
        self._news: dict[str, None] = {}
        self._sending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait for a replica.

        Raises:
            EngineError: if there is none in time.
        """
        try:
            async with asyncio.timeout(START):
                self._capacity = await _call(self._handle.capacity)
        except TimeoutError:
            raise EngineError(f"no engine replica was ready within {START:g} s") from None
        except LOST as error:
            raise EngineError(f"no engine replica answers: {error}") from error

    async def learn(self) -> None:
        """Ask a replica anew what it has room for: those of a new version may have other room.

        Where none answers within `AT_MOST` what was known holds.
        """
        with suppress(TimeoutError, *LOST):
            async with asyncio.timeout(AT_MOST):
                self._capacity = await _call(self._handle.capacity)

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run a request; see `Engine.submit`."""
        told = Progress(request.id, "", 0)
        avoid: list[str] = []
        self._where[request.id] = None
        self._gang_of[request.id] = request.program
        try:
            for _ in range(2):
                sent = going_on(request, told)
                kept = told if sent is not request else Progress(request.id, "", 0)
                try:
                    async with aclosing(self._stream(sent, avoid)) as parts:
                        async for part in parts:
                            event = joined(kept, part)
                            where = self._where[request.id] or ""
                            self._authors.wrote(request, where, event.text)
                            if isinstance(event, Generation):
                                yield event
                                return
                            if event.tokens > told.tokens:
                                told = event
                                yield event
                    raise EngineError("the replica ended a stream without a generation")
                except LOST as error:
                    problem = str(error).split("\n")[0][:300]
                    logger.warning("%s was lost: %s", request.id, problem)
                if request.id in self._cut:
                    yield Generation(request.id, told.text, told.tokens, finish_reason="aborted")
                    return
                avoid += [name for name in (self._where[request.id],) if name is not None]
                self._where[request.id] = None
            yield Generation(
                request.id,
                told.text,
                told.tokens,
                finish_reason="error",
                error=f"the engine was lost twice: {problem}; try again soon",
            )
        finally:
            del self._where[request.id], self._gang_of[request.id]
            self._cut.discard(request.id)

    async def _stream(self, request: Request, avoid: list[str]) -> AsyncGenerator[Event, None]:
        """Events from one replica; leaving early ends the request there."""
        generate = self._handle.options(method_name="generate", stream=True)
        hints = self._hints.of(request.program)
        author = self._authors.of(request)
        response = _call(generate, request, hints, author=author, avoid=list(avoid))
        ended = False
        try:
            async for part in response:
                if isinstance(part, str):
                    self._where[request.id] = part
                    if request.id in self._cut:  # it was cut on its way
                        await self._abort_at(part, [request.id])
                else:
                    ended = isinstance(part, Generation)
                    yield part
        finally:
            if not ended:
                response.cancel()

    async def abort(self, ids: Iterable[str]) -> None:
        """Cut requests; waits no longer than `AT_MOST` for the replicas to hear of it."""
        by_replica: dict[str, list[str]] = {}
        for name in ids:
            if name in self._where:
                self._cut.add(name)
                if (where := self._where[name]) is not None:
                    by_replica.setdefault(where, []).append(name)
        await asyncio.gather(*(self._abort_at(*each) for each in by_replica.items()))

    async def _abort_at(self, replica: str, requests: list[str]) -> None:
        try:
            async with asyncio.timeout(AT_MOST):
                await _call(self._handle.cut, requests, to=replica)
        except (*LOST, TimeoutError):
            logger.debug("a cut was not delivered; a dead replica runs nothing", exc_info=True)

    def hint(self, gang: str, hints: Hints) -> None:
        """Keep the hints for later requests, and tell the replicas of those that run."""
        self._hints.note(gang, hints)
        self._news[gang] = None
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while self._news:
            by_replica: dict[str, dict[str, Hints]] = {}
            for request, where in self._where.items():
                gang = self._gang_of[request]
                if where is not None and gang in self._news:
                    by_replica.setdefault(where, {})[gang] = self._hints.of(gang)
            self._news.clear()
            calls = [_call(self._handle.tell, news, to=to) for to, news in by_replica.items()]
            try:
                async with asyncio.timeout(AT_MOST):
                    await asyncio.gather(*(_done(call) for call in calls), return_exceptions=True)
            except TimeoutError:
                logger.debug("news of gangs were not delivered in time")

    async def measure(self, request: Request) -> int | None:
        """Tokens of a prompt; None where no replica can tell within `AT_MOST`.

        Raises:
            ValueError: if the engine would refuse the request, or whatever else its parts raise.
        """
        try:
            async with asyncio.timeout(AT_MOST):
                tokens: int | None = await _call(self._handle.measure, request)
        except RayTaskError as error:
            if isinstance(error.cause, EngineError):
                return None
            raise error.cause from None
        except (*LOST, TimeoutError):
            return None
        return tokens

    async def counters(self) -> dict[str, float]:
        """What the schedulers of all replicas count: sums, of shares of a KV cache the mean or the peak.

        Raises:
            EngineError: if they do not tell in time.
        """
        try:
            asked = Context().run(self._handle.broadcast, "counters")
            told = await asked.results_async(timeout_s=COUNTED_WITHIN, return_exceptions=True)
        except (*LOST, TimeoutError) as error:
            raise EngineError(f"the replicas do not tell their counters: {error}") from error
        return together([each for each in told if isinstance(each, dict)])

    def expected(self) -> float:
        """Output tokens that are expected to come from the gangs that run."""
        return sum(self._hints.of(gang).tokens or 0.0 for gang in set(self._gang_of.values()))

    def capacity(self) -> Capacity:
        """Of one replica; the others are like it."""
        return self._capacity

    async def close(self) -> None:
        """Cut what runs; the replicas are the cluster's."""
        await self.abort(list(self._where))
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)


def together(counters: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Counters of several engines as those of one; see `VLLMEngine.counters` for the names."""
    whole: dict[str, float] = {}
    for name in {name: None for each in counters for name in each}:
        values = [each.get(name, 0.0) for each in counters]
        if name == "kv_peak":
            whole[name] = max(values)
        else:
            whole[name] = sum(values) / (len(values) if name.startswith("kv_") else 1)
    return whole


def _call(method: Any, *arguments: Any, **more: Any) -> Any:
    """Call a method of a handle, apart from the query that the caller is at.

    Serve gives all calls in the context of one client's request the same id, and its router tells
    calls that wait apart by it; the samples of a query are calls of their own.
    """
    return Context().run(method.remote, *arguments, **more)


async def _done(call: Any) -> None:
    await call
