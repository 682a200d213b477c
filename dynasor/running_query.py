"""A query at work on an event loop: what runs, what has ended and waits, what it cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar

from algorithms.program import Generation, Program, Request, RequestKind
from dynasor.allocator import LiveQuery, StopReason
from dynasor.outcome import Outcome
from dynasor.scheduling.forecast import QueryForecast
from dynasor.scheduling.gang import Hints

logger = logging.getLogger(__name__)

T = TypeVar("T")

TOLD = 3
"""Messages of failed requests that an outcome tells."""


class RunningQuery(LiveQuery):
    """A live query with what only the runtime needs; made on the event loop that runs it.

    Args:
        program: that is at work.
        due: seconds from now in which its answer is wanted, or None.
        in_order: take up what has ended in the order of its proposal, see `Runtime`.

    Attributes:
        outcome: to come.
        reading: held while an event is folded in: one after the other.
        reason: why it was stopped, None before.
        tasks: work for the query that is under way.
        rank: of its prompt, or None.
        forecast: foresees the rest of its work, or None.
        progress: tokens so far of requests that tell.
        hinted: when the scheduler was last told of it, seconds of `time.monotonic`.
    """

    def __init__(self, program: Program, due: float | None, *, in_order: bool) -> None:
        super().__init__(program)
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.reading = asyncio.Lock()
        self.reason: StopReason | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.rank: float | None = None
        self.forecast: QueryForecast | None = None
        self.progress: dict[str, int] = {}
        self._in_order = in_order
        self._proposed: dict[RequestKind, list[str]] = {}  # request ids in order of proposal
        self._taken: dict[RequestKind, int] = {}  # how many of them were taken up
        self._ended: dict[str, tuple[Request, Generation]] = {}  # wait for their turn
        self._started = self.hinted = monotonic()
        self._due = None if due is None else self._started + due
        self._failed = 0
        self._errors: list[str] = []

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that is not to outlive the query."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def start(self, request: Request) -> None:
        """A request is in flight from now on."""
        self.in_flight.add(request.id)
        self._proposed.setdefault(request.kind, []).append(request.id)

    def end(self, request: Request, generation: Generation) -> None:
        """A request has ended; it is in flight until it is taken up, so nothing is decided on it."""
        self._ended[request.id] = (request, generation)

    def take_up(self) -> tuple[Request, Generation] | None:
        """The next one of those that have ended, billed; None if there is none, or it must wait."""
        turn = self._turn()
        if turn is None:
            return None
        request, generation = self._ended.pop(turn)
        self.in_flight.discard(turn)
        self.following.discard(turn)
        self._charge(request, generation)
        return request, generation

    def _turn(self) -> str | None:
        if not self._in_order or self.stopping:
            return next(iter(self._ended), None)
        for kind, proposed in self._proposed.items():
            taken = self._taken.get(kind, 0)
            if taken < len(proposed) and proposed[taken] in self._ended:
                self._taken[kind] = taken + 1
                return proposed[taken]
        return None

    def _charge(self, request: Request, generation: Generation) -> None:
        bill = self.bill
        counts = not self.stopping or request.kind == "answer"
        if generation.finish_reason in ("stop", "length") and counts:
            bill.finished += generation.tokens
        else:
            bill.cut += generation.tokens
        bill.prompt += generation.prompt_tokens
        bill.cached += generation.cached_tokens
        if generation.finish_reason == "error":
            self._failed += 1
            self._errors.append(generation.error or "unknown error")
            logger.warning("request %s failed: %s", generation.request, generation.error)

    def learn(self, request: Request, generation: Generation) -> None:
        """See how long a sample became that was folded in."""
        told = request.kind == "sample" and generation.finish_reason != "error"
        if self.forecast is not None and told:
            # One that its program cut has told what samples cost, as those that ended by themselves.
            self.forecast.sample_ended(generation.tokens, cut=generation.finish_reason == "length")

    def hints(self) -> Hints | None:
        """What is left to do, for the engine's scheduler; None where nothing is known of it."""
        if self.forecast is None and self.rank is None:
            return None
        self.hinted = monotonic()
        tokens = weight = None
        if self.forecast is not None:
            weight = self.forecast.weight
            running = [self.progress.get(request, 0) for request in self.in_flight]
            tokens = self.forecast.remaining(self.program.votes(), running).tokens
        return Hints(
            tokens=tokens,
            rank=self.rank,
            certainty=self.program.certainty().value,
            deadline=None if self._due is None else self._due - monotonic(),
            weight=weight,
        )

    def stop(self, reason: StopReason) -> None:
        """It is decided; what has ended and waits is billed and not looked at any more."""
        self.stopping = True
        self.reason = reason
        if self.forecast is not None:
            self.forecast.ended(self.program.votes(), by_rule=reason != "deadline")
        while self.take_up() is not None:
            pass

    def finish(self) -> Outcome:
        """The outcome of a query that was stopped and has nothing in flight."""
        assert self.reason is not None, "a query ends after it was stopped"
        program, votes, answer = self.program, self.program.votes(), self.program.answer()
        outcome = Outcome(
            query=program.id,
            answer=answer,
            certainty=program.certainty(),
            reason="failed"
            if self._failed and not votes.n and answer.value is None
            else self.reason,
            samples=votes.n,
            failed=self._failed,
            bill=self.bill,
            seconds=monotonic() - self._started,
            errors=tuple(self._errors[:TOLD]),
        )
        self.outcome.set_result(outcome)
        return outcome
