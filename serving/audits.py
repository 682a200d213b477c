"""Audits: a query that was answered goes on to the full budget, to see whether that changes its answer.

An audit begins when its query has its answer, so that nobody waits for it, and asks for work with the
least weight. It takes over the finished samples and goes on with those that were cut, so that it
ends as if the query had not been stopped. While the server is needed for queries it waits, and stops
where it is; when there is room again it goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace

from algorithms.program import Event, Generation, Program, Progress, Request
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.equivalence_share import QueryShare
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.engines.base import Capacity
from dynasor.engines.going_on import going_on, joined
from dynasor.errors import EngineError
from dynasor.runtime import Outcome, Runtime
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.gang import Hints
from dynasor.slo.rungs import FULL
from serving.engine_guard import EngineGuard
from serving.planned_program import program_of
from serving.reasoning_plan import Plan

logger = logging.getLogger(__name__)

LAST = 1e-9
"""Weight of an audit in the scheduler's order: its work looks a thousand million times as large."""


class KeptSamples:
    """The samples of a query that is to be audited, finished and cut."""

    def __init__(self) -> None:
        self._finished: dict[int, Generation] = {}
        self._cut: dict[int, Generation] = {}

    def recorded(self, request: Request) -> Generation | None:
        """The finished sample in the place of a request."""
        finished = self._finished.get(request.index)
        return None if finished is None else replace(finished, request=request.id)

    def write(self, program: Program, request: Request, generation: Generation) -> None:
        """Keep a sample; one that was cut only where its text is all that is needed of it."""
        if generation.finish_reason in ("stop", "length"):
            self._finished[request.index] = generation
        elif generation.finish_reason == "aborted" and generation.logprobs is None:
            self._cut[request.index] = generation

    def begun(self, request: Request) -> Progress:
        """How far the sample in the place of a request had come when it was cut."""
        cut = self._cut.get(request.index)
        return Progress(request.id, cut.text, cut.tokens) if cut else Progress(request.id, "", 0)


class Audits:
    """All audits of the server.

    Args:
        guard: the engine.
        forecast: makes the forecast of a plan, by whose priority its work waits.
        equivalence: says whether two answers are the same.
        told: is told output tokens of each audit, also of one that was dropped.
    """

    def __init__(
        self,
        guard: EngineGuard,
        forecast: Callable[[Plan], Forecast],
        equivalence: AnswerEquivalence,
        told: Callable[[int], None],
    ) -> None:
        self._guard = guard
        self._forecast = forecast
        self._equivalence = equivalence
        self._told = told
        self._room = asyncio.Event()
        self._room.set()
        self._at_work: set[Runtime] = set()
        self._tasks: set[asyncio.Task[bool | None]] = set()

    @property
    def running(self) -> int:
        """Audits that have begun, those that wait too."""
        return len(self._tasks)

    def keep(self, plan: Plan, most: int) -> KeptSamples | None:
        """Where to keep the samples of a query that is to be audited; None: it is not.

        Args:
            plan: of the query.
            most: audits at once.
        """
        picked = plan.admission is not None and plan.admission.audit
        return KeptSamples() if picked and len(self._tasks) < most else None

    def begin(
        self, plan: Plan, kept: KeptSamples, outcome: Outcome | None, *, seconds: float
    ) -> None:
        """Audit a query that has ended. Each that was picked counts, however it ended.

        Args:
            plan: of the query, with its admission.
            kept: its samples.
            outcome: what became of it; None: it was left, or lost its engine.
            seconds: after which the audit is dropped, those that it waits included.
        """
        admission = plan.admission
        assert admission is not None
        watch = admission.of
        if outcome is None or outcome.reason not in ("certain", "hopeless", "complete"):
            watch.audited(admission, differed=None)
        elif outcome.reason == "complete" and plan.samples == admission.full_samples:
            watch.audited(admission, differed=False)
        else:
            whole = plan.with_setting(FULL, admission.full_samples, plan.wave)
            whole = replace(
                whole, id=f"{plan.id}-audit", priority=0, weight=LAST, report_every=None
            )
            self._start(whole, outcome.answer.value, kept, seconds)

    def _start(self, plan: Plan, answer: str | None, kept: KeptSamples, seconds: float) -> None:
        admission = plan.admission
        assert admission is not None
        task = asyncio.create_task(self._run(plan, answer, kept, seconds))
        self._tasks.add(task)

        def over(task: asyncio.Task[bool | None]) -> None:
            self._tasks.discard(task)
            admission.of.audited(admission, differed=None if task.cancelled() else task.result())

        task.add_done_callback(over)

    def pause(self) -> None:
        """Stop all audits where they are; the server is needed for queries."""
        self._room.clear()
        for runtime in list(self._at_work):
            runtime.conclude()

    def go_on(self) -> None:
        """There is room again."""
        self._room.set()

    def drop(self) -> None:
        """End all audits."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End all audits, and wait until nothing is left of them."""
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(
        self, plan: Plan, answer: str | None, kept: KeptSamples, seconds: float
    ) -> bool | None:
        """Whether the full budget's answer is another one; None if it came to no end."""
        engine = _GoingOn(self._guard, kept)
        try:
            async with asyncio.timeout(seconds):
                outcome = await self._whole(plan, engine, kept)
            if outcome.reason != "complete" or outcome.failed:
                return None
            return not await asyncio.to_thread(self._same, answer, outcome.answer.value)
        except TimeoutError:
            logger.info("the audit %s came to no end in %g s", plan.id, seconds)
        except EngineError:
            logger.warning("the audit %s lost its engine", plan.id)
        except Exception:
            logger.exception("the audit %s failed", plan.id)
        finally:
            self._told(engine.tokens)
        return None

    async def _whole(self, plan: Plan, engine: _GoingOn, kept: KeptSamples) -> Outcome:
        """The end of a query under the full budget, with as many pauses as the server needs."""
        turn = 0
        while True:
            await self._room.wait()
            again = replace(plan, id=f"{plan.id}-{turn}") if turn else plan
            runtime = Runtime(
                engine,
                PerQuery(parse_rule(plan.rule), plan.wave),
                in_order=plan.in_order,
                log=kept,
                forecast=self._forecast(plan),
            )
            self._at_work.add(runtime)
            try:
                outcome = await runtime.solve(program_of(again, QueryShare(self._equivalence)))
            finally:
                self._at_work.discard(runtime)
            if outcome.reason != "deadline":
                return outcome
            turn += 1

    def _same(self, first: str | None, second: str | None) -> bool:
        groups = AnswerGroups(QueryShare(self._equivalence))
        return groups.add(first) == groups.add(second)


class _GoingOn:
    """The engine for an audit: samples that were cut go on where they were.

    A sample with a seed is drawn anew, which gives the same text.
    """

    def __init__(self, guard: EngineGuard, kept: KeptSamples) -> None:
        self._guard = guard
        self._kept = kept
        self.tokens = 0
        """Output tokens of ended requests, without those that the query had spent on them."""

    async def start(self) -> None:
        """Nothing: it runs."""

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run the rest of a request."""
        begun = self._kept.begun(request)
        rest = going_on(request, begun)
        if rest.prefix == request.prefix:
            begun = Progress(request.id, "", 0)
        async with aclosing(self._guard.submit(rest)) as events:
            async for event in events:
                if isinstance(event, Generation):
                    self.tokens += event.tokens
                yield joined(begun, event)

    async def abort(self, ids: Iterable[str]) -> None:
        """Pass on."""
        await self._guard.abort(ids)

    def hint(self, gang: str, hints: Hints) -> None:
        """Pass on."""
        self._guard.hint(gang, hints)

    def capacity(self) -> Capacity:
        """Of the engine."""
        return self._guard.capacity()

    async def close(self) -> None:
        """Nothing: it is not ours to close."""
