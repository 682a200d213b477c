"""Keeps an engine alive: one that dies is started anew, and what it was at is tried once more.

A request that was lost begins again. Where part of its text was already told, it goes on from there,
so that a client that reads along sees one text; a request with a seed is drawn again from its
beginning, since the same seed gives the same text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from time import monotonic

from opentelemetry.trace import Span, Tracer

from algorithms.program import Event, Generation, Progress, Request
from dynasor.engines.base import Capacity, Engine
from dynasor.engines.going_on import going_on, joined
from dynasor.errors import EngineError
from dynasor.scheduling.gang import Hints

logger = logging.getLogger(__name__)

LOST = "the engine was lost"
"""What errors of requests begin with that no engine was there for."""
CHECK_EVERY = 0.5
"""Seconds between looks at an idle engine."""
LONGEST_PAUSE = 30.0
"""Seconds between tries to start it, at most."""


class EngineGuard:
    """An engine that is started anew when it dies.

    Args:
        build: makes an engine, not yet started.
        tracer: of one span a request.
        patience: seconds that a request waits for an engine.
        recovered: told the seconds from a death to the new engine.
    """

    def __init__(
        self,
        build: Callable[[], Engine],
        tracer: Tracer,
        *,
        patience: float = 60.0,
        recovered: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._build = build
        self._tracer = tracer
        self._patience = patience
        self._recovered = recovered
        self.engine = build()
        self.restarts = 0
        self.running = 0
        """Requests that were submitted and have not ended."""
        self._up = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._cuts: dict[str, asyncio.Event] = {}
        self._capacity = Capacity(1, "unknown", supports_seed=True)

    @property
    def ready(self) -> bool:
        """Whether the engine serves."""
        return self._up.is_set()

    async def start(self) -> None:
        """Start the engine, and watch it from now on.

        Raises:
            EngineError: if it cannot be started the first time.
        """
        await self.engine.start()
        self._capacity = self.engine.capacity()
        self._up.set()
        self._watch = asyncio.create_task(self._keep_alive())

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await self._check()
            except EngineError as error:
                self._up.clear()
                logger.error("the engine is lost: %s", error)
                await self._restart()

    async def _check(self) -> None:
        check = getattr(self.engine, "check", None)
        if check is not None:
            await check()
        if not self._up.is_set():
            raise EngineError("a request met a dead engine")

    async def _restart(self) -> None:
        died, pause = monotonic(), 0.5
        while True:
            try:
                await self.engine.close()
                self.engine = self._build()
                await self.engine.start()
            except Exception as error:  # whatever it is, the next try may do better
                logger.error("the engine does not start: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                break
        self.restarts += 1
        self._up.set()
        self._recovered(monotonic() - died)
        logger.warning("the engine is back after %.1f s", monotonic() - died)

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run one request, on the next engine if the first one dies; never raises for that."""
        cut = self._cuts[request.id] = asyncio.Event()
        self.running += 1
        span = self._tracer.start_span(
            "request", attributes={"gang": request.program, "kind": request.kind}
        )
        try:
            async for event in self._try_twice(request, cut):
                if isinstance(event, Generation):
                    _note(span, event)
                yield event
        finally:
            self.running -= 1
            span.end()
            del self._cuts[request.id]

    async def _try_twice(self, request: Request, cut: asyncio.Event) -> AsyncIterator[Event]:
        told = Progress(request.id, "", 0)
        for _ in range(2):
            if not await self._wait_for_engine(cut):
                break
            engine = self.engine
            attempt = going_on(request, told)
            kept = told if attempt.prefix != request.prefix else Progress(request.id, "", 0)
            try:
                async with aclosing(engine.submit(attempt)) as events:
                    async for event in events:
                        event = joined(kept, event)
                        if isinstance(event, Progress) and event.tokens > told.tokens:
                            told = event
                        yield event
                return
            except EngineError:
                if engine is self.engine:
                    self._up.clear()
        if cut.is_set():
            yield Generation(request.id, told.text, told.tokens, finish_reason="aborted")
        else:
            error = f"{LOST}; try again soon"
            yield Generation(request.id, told.text, told.tokens, finish_reason="error", error=error)

    async def _wait_for_engine(self, cut: asyncio.Event) -> bool:
        """Whether there is an engine, and the request is still wanted."""
        if not self._up.is_set() and not cut.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._up, cut)]
            try:
                await asyncio.wait(
                    waits, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for wait in waits:
                    wait.cancel()
        return self._up.is_set() and not cut.is_set()

    async def abort(self, ids: Iterable[str]) -> None:
        """Cut requests, also those that wait for an engine."""
        known = [name for name in ids if name in self._cuts]
        for name in known:
            self._cuts[name].set()
        try:
            await self.engine.abort(known)
        except Exception:  # a dead engine runs nothing that could be cut
            logger.debug("an abort was not taken", exc_info=True)

    def hint(self, gang: str, hints: Hints) -> None:
        """Pass on."""
        self.engine.hint(gang, hints)

    def capacity(self) -> Capacity:
        """Of the engine; while there is none, of the last one."""
        if self.ready:
            self._capacity = self.engine.capacity()
        return self._capacity

    async def measure(self, request: Request) -> int | None:
        """Tokens of a prompt; None where the engine cannot tell.

        Raises:
            ValueError: if the engine would refuse the request.
        """
        measure = getattr(self.engine, "measure", None)
        tokens: int | None = None
        if measure is not None and self.ready:
            tokens = await measure(request)
        return tokens

    async def counters(self) -> dict[str, float]:
        """What the engine's scheduler counts; empty where it counts nothing."""
        counters = getattr(self.engine, "counters", None)
        if counters is None or not self.ready:
            return {}
        try:
            return dict(await counters())
        except EngineError:
            return {}

    async def close(self) -> None:
        """End the watch and the engine."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        self._up.clear()
        await self.engine.close()


def _note(span: Span, end: Generation) -> None:
    span.set_attribute("tokens.output", end.tokens)
    span.set_attribute("tokens.prompt", end.prompt_tokens)
    span.set_attribute("tokens.cached", end.cached_tokens)
    span.set_attribute("finish_reason", end.finish_reason)
