"""The loop: programs propose, the allocator grants, the engine runs, events come back.

Life of a query: `solve` admits it; the allocator grants requests; each runs as a task that carries
its events into the program; after each news the allocator reviews the query; when it says stop, what
is in flight is cut and billed, and the outcome is ready. Everything but the engine's own work and the
reading of answers (which may ask another process) happens on one event loop, without locks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Literal, Protocol

from algorithms.program import (
    Answer,
    Certainty,
    Event,
    Generation,
    Program,
    Request,
    RequestKind,
)
from dynasor.allocator import Allocator, LiveQuery, StopReason, TokenBill
from dynasor.engines.base import Engine
from dynasor.errors import EngineError
from dynasor.ranking.scorer import LengthScorer
from dynasor.scheduling.forecast import Forecast, QueryForecast
from dynasor.scheduling.gang import Hints

logger = logging.getLogger(__name__)

CUT_TIMEOUT = 30.0
"""Seconds that an engine has to confirm a cut; then the query ends without its last token counts."""
HINT_EVERY = 1.0
"""Seconds between two hints that have only the progress of running requests to tell."""
AHEAD = 0.05
"""Part of the time until an answer is due that is kept for cutting a query and sending its answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a query.

    Attributes:
        query: its id.
        answer: the answer and its rivals.
        certainty: at the end.
        reason: why it stopped.
        samples: finished answers that were compared: samples, probes or leaves.
        failed: requests that the engine failed.
        bill: tokens.
        seconds: from admission to the answer.
        errors: the first messages of failed requests.
    """

    query: str
    answer: Answer
    certainty: Certainty
    reason: StopReason | Literal["failed"]
    samples: int
    failed: int
    bill: TokenBill
    seconds: float
    errors: tuple[str, ...] = ()


class Observer(Protocol):
    """Is told what happens, for a display or a log; must be quick and must not raise."""

    def received(self, program: Program, request: Request, event: Event) -> None:
        """An event was folded into its program."""
        ...

    def stopped(self, program: Program, outcome: Outcome) -> None:
        """A query has its outcome."""
        ...


class SampleLog(Protocol):
    """Keeps finished samples, and knows those of an earlier run."""

    def recorded(self, request: Request) -> Generation | None:
        """The finished sample of an earlier run that answers this request."""
        ...

    def write(self, program: Program, request: Request, generation: Generation) -> None:
        """Keep a generation before anything is decided on it."""
        ...


class _Query(LiveQuery):
    """A live query with what only the runtime needs."""

    def __init__(self, program: Program, due: float | None) -> None:
        super().__init__(program)
        self.due = None if due is None else monotonic() + due
        self.late = False  # its best answer so far is wanted now
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.reading = asyncio.Lock()  # events are folded in one after the other
        self.proposed: dict[RequestKind, list[str]] = {}  # request ids in order of proposal
        self.folded: dict[RequestKind, int] = {}
        self.ended: dict[str, tuple[Request, Generation]] = {}  # wait for their turn
        self.tasks: set[asyncio.Task[None]] = set()
        self.reason: StopReason | None = None
        self.started = monotonic()
        self.failed = 0
        self.errors: list[str] = []
        self.rank: float | None = None
        self.forecast: QueryForecast | None = None
        self.progress: dict[str, int] = {}  # tokens so far of requests that tell
        self.hinted = self.started


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
        self._open: dict[str, _Query] = {}

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
            deadline: seconds after which the query ends with whatever answer it has, or None.
            due: seconds in which the answer is wanted, or None; the scheduler goes by it.
            when_due: answer shortly before it is due with the best so far, or as soon after as there
                is one; else the stop rule is waited for.
            question: what is asked, by which the query is ranked; None for no rank.

        Raises:
            EngineError: if the engine dies.
        """
        query = _Query(program, due)
        await self._foresee(query, question)
        loop = asyncio.get_running_loop()
        timers = []
        if deadline is not None:
            timers.append(loop.call_later(deadline, self._stop, query, "deadline"))
        if due is not None and when_due:
            timers.append(loop.call_later((1 - AHEAD) * due, self._press, query))
        self._allocator.admit(query)
        self._open[program.id] = query
        try:
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

    async def _foresee(self, query: _Query, question: str | None) -> None:
        """Rank the query, which takes no longer than the scorer's deadline."""
        ranked = None
        if self._scorer is not None and question is not None:
            ranked = await self._scorer.rank(question)
        if ranked is not None:
            query.rank = ranked.rank
        if self._forecast is not None:
            query.forecast = self._forecast.query(None if ranked is None else ranked.lengths)

    def _press(self, query: _Query) -> None:
        """The answer is due."""
        query.late = True
        if query.program.votes().n:
            self._stop(query, "deadline")

    def _review(self, query: _Query) -> None:
        """Ask what to do with a query that has news, then start whatever was granted to anyone."""
        if not query.stopping:
            self._cut(query, query.program.cancelled())
            self._follow(query)  # first, so that what waits for a reward is not held to be complete
            reason = self._allocator.review(query)
            if reason is None and query.late and query.program.votes().n:
                reason = "deadline"
            if reason is not None:
                self._stop(query, reason)
            else:
                self._hint(query)
        for granted in self._allocator.grants():
            assert isinstance(granted.query, _Query)
            requests = granted.query.program.propose(granted.requests)
            for request in requests:
                self._start(granted.query, request)
            self._follow(granted.query)
            if not requests and not granted.query.in_flight:
                self._stop(granted.query, "complete")  # nothing is left to try
        for idle in self._allocator.spent():
            assert isinstance(idle, _Query)
            self._stop(idle, "budget")

    def _follow(self, query: _Query) -> None:
        """Start what follows from the work that runs."""
        for request in query.program.follow_ups():
            query.following.add(request.id)
            self._start(query, request)

    def _start(self, query: _Query, request: Request) -> None:
        query.in_flight.add(request.id)
        query.proposed.setdefault(request.kind, []).append(request.id)
        task = asyncio.create_task(self._carry(query, request))
        query.tasks.add(task)
        task.add_done_callback(query.tasks.discard)

    async def _carry(self, query: _Query, request: Request) -> None:
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

    async def _receive(self, query: _Query, request: Request, event: Event, *, keep: bool) -> None:
        if not isinstance(event, Generation):
            if not query.stopping:
                query.program.receive(event)
                query.progress[request.id] = event.tokens
                self._notify(query, request, event)
                self._cut(query, query.program.cancelled())
                self._follow(query)
                if monotonic() - query.hinted > HINT_EVERY:
                    self._hint(query)
            return
        # First on disk: a decision may only rest on samples that a restart will find again.
        if keep and self._log is not None:
            self._log.write(query.program, request, event)
        query.ended[request.id] = (request, event)
        async with query.reading:
            while (turn := self._next_turn(query)) is not None:
                await self._fold(query, *query.ended.pop(turn))
        if query.stopping and not query.in_flight:
            self._finish(query)

    def _next_turn(self, query: _Query) -> str | None:
        """The ended request that is folded next."""
        if not self._in_order or query.stopping:
            return next(iter(query.ended), None)
        for kind, proposed in query.proposed.items():
            folded = query.folded.get(kind, 0)
            if folded < len(proposed) and proposed[folded] in query.ended:
                query.folded[kind] = folded + 1
                return proposed[folded]
        return None

    async def _fold(self, query: _Query, request: Request, generation: Generation) -> None:
        """Bill a generation; while the query is open, also tell its program and decide."""
        query.in_flight.discard(request.id)  # until here: what waits for its turn is not decided on
        query.following.discard(request.id)
        self._charge(query, request, generation)
        if query.stopping and request.kind != "answer":
            # The answer was decided without it.
            return
        # Reading an answer may wait for the equivalence worker; other queries go on meanwhile.
        await asyncio.to_thread(query.program.receive, generation)
        self._notify(query, request, generation)
        told = request.kind == "sample" and generation.finish_reason != "error"
        if query.forecast is not None and told:
            # One that its program cut has told what samples cost, as those that ended by themselves.
            query.forecast.sample_ended(generation.tokens, cut=generation.finish_reason == "length")
        self._review(query)

    def _hint(self, query: _Query) -> None:
        """Tell the engine's scheduler what is left to do."""
        if query.forecast is None and query.rank is None:
            return
        query.hinted = monotonic()
        program, tokens = query.program, None
        if query.forecast is not None:
            running = [query.progress.get(request, 0) for request in query.in_flight]
            tokens = query.forecast.remaining(program.votes(), running).tokens
        hints = Hints(
            tokens=tokens,
            rank=query.rank,
            certainty=program.certainty().value,
            deadline=None if query.due is None else query.due - monotonic(),
        )
        self._engine.hint(program.id, hints)

    def _notify(self, query: _Query, request: Request, event: Event) -> None:
        if self._observer is not None:
            self._observer.received(query.program, request, event)

    def _charge(self, query: _Query, request: Request, generation: Generation) -> None:
        bill = query.bill
        counts = not query.stopping or request.kind == "answer"
        if generation.finish_reason in ("stop", "length") and counts:
            bill.finished += generation.tokens
        else:
            bill.cut += generation.tokens
        bill.prompt += generation.prompt_tokens
        bill.cached += generation.cached_tokens
        if generation.finish_reason == "error":
            query.failed += 1
            query.errors.append(generation.error or "unknown error")
            logger.warning("request %s failed: %s", generation.request, generation.error)

    def _cut(self, query: _Query, requests: Iterable[str]) -> None:
        running = [name for name in requests if name in query.in_flight]
        if running:
            task = asyncio.create_task(self._engine.abort(running))
            query.tasks.add(task)
            task.add_done_callback(query.tasks.discard)

    def _stop(self, query: _Query, reason: StopReason) -> None:
        if query.stopping:
            if reason == "deadline":  # there is no time for last words either
                self._cut(query, list(query.in_flight))
            return
        query.stopping = True
        query.reason = reason
        self._allocator.release(query)
        if query.forecast is not None:
            query.forecast.ended(query.program.votes(), by_rule=reason != "deadline")
        for request, generation in query.ended.values():
            query.in_flight.discard(request.id)
            self._charge(query, request, generation)
        query.ended.clear()
        cut = list(query.in_flight)
        if reason != "deadline":
            for request in query.program.conclude():
                self._start(query, request)
        self._cut(query, cut)
        if cut:
            asyncio.get_running_loop().call_later(CUT_TIMEOUT, self._forget, query, cut)
        if not query.in_flight:
            self._finish(query)

    def _forget(self, query: _Query, requests: Iterable[str]) -> None:
        """Wait no longer for requests that were cut."""
        query.in_flight.difference_update(requests)
        if not query.in_flight:
            self._finish(query)

    def _finish(self, query: _Query) -> None:
        if query.outcome.done():
            return
        program, votes, answer = query.program, query.program.votes(), query.program.answer()
        reason = query.reason
        assert reason is not None, "a query ends after it was stopped"
        outcome = Outcome(
            query=program.id,
            answer=answer,
            certainty=program.certainty(),
            reason="failed" if query.failed and not votes.n and answer.value is None else reason,
            samples=votes.n,
            failed=query.failed,
            bill=query.bill,
            seconds=monotonic() - query.started,
            errors=tuple(query.errors[:3]),
        )
        query.outcome.set_result(outcome)
        if self._observer is not None:
            self._observer.stopped(program, outcome)

    async def _clear(self, query: _Query) -> None:
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
