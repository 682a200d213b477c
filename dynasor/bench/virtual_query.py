"""A query in virtual time: its program, the samples that it will get, and its jobs on replicas."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from algorithms.program import Program, Request
from dynasor.allocator import LiveQuery
from dynasor.bench.recorded import RecordedQuestion
from dynasor.bench.workload import Arrival
from dynasor.engines.simulated_job import Job
from dynasor.scheduling.forecast import QueryForecast
from dynasor.scheduling.gang import Hints


class VirtualQuery(LiveQuery):
    """A live query with what only the simulation needs.

    Args:
        arrival: as which it came.
        question: that it asks.
        order: which recorded sample each of its requests gets, by index.
        program: at work on it.

    Attributes:
        jobs: in flight, by name.
        expected: tokens to come.
        first_token: when it got one, or None.
        forecast: foresees the rest of its work, or None.
    """

    def __init__(
        self,
        arrival: Arrival,
        question: RecordedQuestion,
        order: list[int],
        program: Program,
    ) -> None:
        super().__init__(program)
        self.arrival = arrival
        self.question = question
        self.order = order
        self.jobs: dict[str, Job] = {}
        self.expected = 0.0
        self.first_token: float | None = None
        self.forecast: QueryForecast | None = None
        self._hints: tuple[Hints, float] | None = None  # the latest, and their time

    def start(self, request: Request) -> Job:
        """A request is in flight from now on."""
        job = Job(
            request.id,
            self.arrival.id,
            self.arrival.question,
            self.question.prompt_tokens,
            self.question.tokens(self.order[request.index]),
            request.report_every,
        )
        self.in_flight.add(request.id)
        self.jobs[request.id] = job
        return job

    def leave(self, job: Job) -> None:
        """A job is over: forget it, but for the bill of its prompt."""
        del self.jobs[job.name]
        self.in_flight.discard(job.name)
        self.bill.prompt += job.prompt
        self.bill.cached += job.cached or 0
        if job.first_token is not None:
            earlier = inf if self.first_token is None else self.first_token
            self.first_token = min(job.first_token, earlier)

    def hints(self, rank: float | None, now: float) -> Hints:
        """What is left to do, for the replica's scheduler."""
        deadline = self.arrival.deadline
        hints = Hints(
            tokens=None if self.forecast is None else self.expected,
            rank=rank,
            certainty=self.program.certainty().value,
            deadline=None if deadline is None else self.arrival.time + deadline - now,
            weight=None if self.forecast is None else self.forecast.weight,
        )
        self._hints = (hints, now)
        return hints

    def latest_hints(self, now: float) -> Hints | None:
        """The hints that were made last, as of now."""
        if self._hints is None:
            return None
        hints, then = self._hints
        if hints.deadline is None:
            return hints
        return replace(hints, deadline=hints.deadline - (now - then))
