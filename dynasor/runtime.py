"""The loop: programs propose, the allocator grants, the engine runs, events come back.

Life of a query: `solve` admits it; the allocator grants requests; each runs as a task that carries
its events into the program; after each news the allocator reviews the query (`dynasor.decisions`);
when it says stop, what is in flight is cut and billed, and the outcome is ready. Everything but the
engine's own work and the reading of answers (which may ask another process) happens on one event loop,
without locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import Any

from algorithms.program import Event, Generation, Program, Request
from dynasor.allocator import Allocator, StopReason
from dynasor.decisions import AHEAD, Cut, Decision, Hint, Start, Stop, press, review, watch
from dynasor.engines.base import Engine
from dynasor.errors import EngineError
from dynasor.observer import Observer
from dynasor.outcome import Outcome
from dynasor.ranking.scorer import LengthScorer
from dynasor.running_query import RunningQuery
from dynasor.sample_log import SampleLog
from dynasor.scheduling.forecast import Forecast

__all__ = ["Observer", "Outcome", "Runtime", "SampleLog"]

logger = logging.getLogger(__name__)

CUT_TIMEOUT = 30.0
"""Seconds that an engine has to confirm a cut; then the query ends without its last token counts."""
HINT_EVERY = 1.0
"""Seconds between two hints that have only the progress of running requests to tell."""


class Runtime:
    """Runs programs on an engine under an allocator.

    Args:
        engine: started by the caller, who also closes it.
        allocator: decides.
        in_order: fold the requests of a query and of one kind in the order in which it proposed
            them. Decisions then depend on what was generated only and not on which request was
            fastest, at the price of waiting for a slow sibling.
        log: keeps the finished samples, or None.
        observer: is told what happens, or None.
        forecast: foresees how much work a query has left, for the engine's scheduler; or None.
        scorer: ranks queries by their prompt, for the scheduler and the forecast; or None.
    """

    def __init__(
        self,
        engine: Engine,
        allocator: Allocator,
        *,
        in_order: bool = False,
        log: SampleLog | None = None,
        observer: Observer | None = None,
        forecast: Forecast | None = None,
        scorer: LengthScorer | None = None,
    ) -> None:
        self._forecast = forecast
        self._scorer = scorer
        self._engine = engine
        self._allocator = allocator
        self._in_order = in_order
        self._log = log
        self._observer = observer
        self._open: dict[str, RunningQuery] = {}

    async def run(
        self, programs: Iterable[Program], *, admission: int, deadline: float | None = None
    ) -> AsyncIterator[Outcome]:
        """Outcomes as they come, with at most `admission` queries at once.

        Closing the iterator, or an error of the engine, cuts what still runs.
        """
        waiting = iter(programs)
        running: set[asyncio.Task[Outcome]] = set()
        try:
            while True:
                while len(running) < admission and (program := next(waiting, None)) is not None:
                    running.add(asyncio.create_task(self.solve(program, deadline=deadline)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def solve(
        self,
        program: Program,
        *,
        deadline: float | None = None,
        due: float | None = None,
        when_due: bool = False,
        question: str | None = None,
    ) -> Outcome:
        """Run one program to its outcome; cancelling the call cuts its requests.

        Args:
            program: a fresh program.
            deadline: seconds from now after which the query ends with whatever answer it has, or None.
            due: seconds from now in which the answer is wanted, or None; the scheduler goes by it.
            when_due: answer shortly before it is due with the best so far, or as soon after as there
                is one; else the stop rule is waited for.
            question: what is asked, by which the query is ranked; None for no rank.

        Raises:
            EngineError: if the engine dies.
        """
        query = RunningQuery(program, due, in_order=self._in_order)
        loop = asyncio.get_running_loop()
        timers = []
        if deadline is not None:
            timers.append(loop.call_later(deadline, self._stop, query, "deadline"))
        if due is not None and when_due:
            timers.append(loop.call_later((1 - AHEAD) * due, self._press, query))
        self._allocator.admit(query)
        self._open[program.id] = query
        try:
            await self._foresee(query, question)
            self._review(query)
            return await query.outcome
        finally:
            self._open.pop(program.id, None)
            for timer in timers:
                timer.cancel()
            await self._clear(query)

    def conclude(self) -> None:
        """End all queries now with the best answers so far, as if their deadlines had come."""
        for query in list(self._open.values()):
            self._stop(query, "deadline")

    async def _foresee(self, query: RunningQuery, question: str | None) -> None:
        """Rank the query, which takes no longer than the scorer's deadline and the query itself."""
        ranked = None
        if self._scorer is not None and question is not None:
            ranking = query.spawn(self._scorer.rank(question))
            either: list[asyncio.Future[Any]] = [ranking, query.outcome]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if query.stopping:
                return
            ranked = ranking.result()
        if ranked is not None:
            query.rank = ranked.rank
        if self._forecast is not None:
            query.forecast = self._forecast.query(ranked)

    # Decisions, and how they are carried out ----------------------------------------------------

    def _press(self, query: RunningQuery) -> None:
        self._carry_out(press(query))

    def _review(self, query: RunningQuery) -> None:
        self._carry_out(review(query, self._allocator))

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            query = decision.query
            assert isinstance(query, RunningQuery), "the allocator has its queries from us"
            match decision:
                case Start(_, request):
                    query.start(request)
                    query.spawn(self._run(query, request))
                case Cut(_, requests):
                    self._cut(query, requests)
                case Stop(_, reason):
                    self._stop(query, reason)
                case Hint():
                    self._hint(query)

    def _cut(self, query: RunningQuery, requests: Iterable[str]) -> None:
        running = [name for name in requests if name in query.in_flight]
        if running:
            query.spawn(self._engine.abort(running))

    def _hint(self, query: RunningQuery) -> None:
        hints = query.hints()
        if hints is not None:
            self._engine.hint(query.program.id, hints)

    def _stop(self, query: RunningQuery, reason: StopReason) -> None:
        if query.stopping:
            if reason == "deadline":  # there is no time for last words either
                self._cut(query, list(query.in_flight))
            return
        query.stop(reason)
        self._allocator.release(query)
        cut = list(query.in_flight)
        if reason != "deadline":
            self._carry_out(Start(query, request) for request in query.program.conclude())
        self._cut(query, cut)
        if cut:
            asyncio.get_running_loop().call_later(CUT_TIMEOUT, self._forget, query, cut)
        self._finish_if_idle(query)

    def _forget(self, query: RunningQuery, requests: Iterable[str]) -> None:
        """Wait no longer for requests that were cut."""
        query.in_flight.difference_update(requests)
        self._finish_if_idle(query)

    def _finish_if_idle(self, query: RunningQuery) -> None:
        """A query that was stopped is over when nothing of it runs."""
        if query.in_flight or query.outcome.done():
            return
        outcome = query.finish()
        if self._observer is not None:
            self._observer.stopped(query.program, outcome)

    # Events ---------------------------------------------------------------------------------------

    async def _run(self, query: RunningQuery, request: Request) -> None:
        """Carry the events of one request into its program."""
        try:
            recorded = self._log.recorded(request) if self._log else None
            if recorded is not None:
                await self._receive(query, request, recorded, keep=False)
                return
            async for event in self._engine.submit(request):
                await self._receive(query, request, event, keep=True)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Whatever it is belongs to the caller of `solve`: a full disk, a dead engine, a bug.
            if not query.outcome.done():
                query.outcome.set_exception(error)

    async def _receive(
        self, query: RunningQuery, request: Request, event: Event, *, keep: bool
    ) -> None:
        if not isinstance(event, Generation):
            if not query.stopping:
                query.program.receive(event)
                query.progress[request.id] = event.tokens
                self._notify(query, request, event)
                self._carry_out(watch(query))
                if monotonic() - query.hinted > HINT_EVERY:
                    self._hint(query)
            return
        # First on disk: a decision may only rest on samples that a restart will find again.
        if keep and self._log is not None:
            self._log.write(query.program, request, event)
        query.end(request, event)
        async with query.reading:
            while (ended := query.take_up()) is not None:
                await self._fold(query, *ended)
        if query.stopping:
            self._finish_if_idle(query)

    async def _fold(self, query: RunningQuery, request: Request, generation: Generation) -> None:
        """Tell an open query's program of a generation, and decide."""
        if query.stopping and request.kind != "answer":
            # The answer was decided without it.
            return
        # Reading an answer may wait for the equivalence worker; other queries go on meanwhile.
        await asyncio.to_thread(query.program.receive, generation)
        self._notify(query, request, generation)
        query.learn(request, generation)
        self._review(query)

    def _notify(self, query: RunningQuery, request: Request, event: Event) -> None:
        if self._observer is not None:
            self._observer.received(query.program, request, event)

    async def _clear(self, query: RunningQuery) -> None:
        """Leave nothing of the query behind: neither tasks nor requests in the engine."""
        if not query.stopping:
            query.stopping = True
            self._allocator.release(query)
        if query.in_flight:
            try:
                await self._engine.abort(list(query.in_flight))
            except EngineError:
                logger.debug("the engine died before %s was cut", query.program.id)
        for task in list(query.tasks):
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.gather(*query.tasks, return_exceptions=True)
