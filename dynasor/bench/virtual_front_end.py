"""An event loop in place of the clock: what the runtime does with an engine, done with replicas.

In the same order as `dynasor.runtime`, and by the same decisions (`dynasor.decisions`): a generation is
billed and folded into its program, the allocator reviews, the scheduler gets hints, what was granted is
started, and a query that stops has what it runs cut. Decisions take no time, but for what the front end
is said to take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, TypeAlias, TypeVar

from algorithms.program import Generation, Progress, Request
from dynasor.allocator import Allocator, StopReason
from dynasor.bench.cluster import Cluster
from dynasor.bench.recorded import (
    BuildProgram,
    RecordedQuestion,
    recorded_task,
    self_consistency,
)
from dynasor.bench.virtual_fleet import VirtualFleet
from dynasor.bench.virtual_query import VirtualQuery
from dynasor.bench.virtual_router import build_router
from dynasor.bench.workload import Arrival, Completion
from dynasor.decisions import AHEAD, Cut, Decision, Hint, Start, Stop, press, review, watch
from dynasor.engines.simulated import Replica
from dynasor.engines.simulated_job import Job, Queue, Report
from dynasor.errors import DataError
from dynasor.ranking.ranked import Ranked
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.gang import Hints

Each = TypeVar("Each")
ByGroup: TypeAlias = Each | Mapping[str, Each]
"""One for all queries, or group of an arrival -> its own."""


def of_group(value: ByGroup[Each], group: str) -> Each:
    """What a group has."""
    return value[group] if isinstance(value, Mapping) else value


class FrontEnd:
    """The event loop; see the module.

    Args:
        replicas: what serves.
        cluster: what the front end takes, and which replica runs what.
        queue: builds the queue of jobs for which the router does not choose a replica.
        questions, allocator, samples, forecast, ranked, when_due, program, seed: see `simulate`.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        cluster: Cluster,
        queue: Callable[[Callable[[], float]], Queue],
        questions: Mapping[str, RecordedQuestion],
        allocator: Allocator,
        samples: ByGroup[int],
        forecast: ByGroup[Forecast] | None,
        ranked: Mapping[str, Ranked],
        when_due: bool,
        program: BuildProgram,
        seed: str,
    ) -> None:
        self.completions: list[Completion] = []
        self.now = 0.0
        self._questions = questions
        self._cluster = cluster
        self._allocator = allocator
        self._samples = samples
        self._forecast = forecast
        self._ranked = ranked
        self._when_due = when_due
        self._program = program
        self._seed = seed
        self._mean_tokens = [500.0, 0]  # of ended samples, and how many
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._owners: dict[Job, tuple[VirtualQuery, Request]] = {}
        self._open_queries: dict[str, VirtualQuery] = {}
        places = cluster.replica.max_running
        router = build_router(cluster.routing, len(replicas), places)
        self._fleet = VirtualFleet(
            replicas, places, router, queue(lambda: self.now), lambda: self.now, self._at
        )
        self._fleet.serve(self._step, self._latest)

    # The loop -----------------------------------------------------------------------------------

    def run(self, workload: Iterable[Arrival], progress: Callable[[int], None] | None) -> None:
        """Serve all arrivals to their end."""
        arrivals = iter(workload)
        coming = next(arrivals, None)
        told = 0
        while coming is not None or self._events:
            if coming is not None and (not self._events or coming.time <= self._events[0][0]):
                if not coming.time >= self.now:
                    raise DataError(
                        f"arrival {coming.id} at {coming.time} s comes after one at {self.now} s: "
                        "sort the workload by time"
                    )
                self.now = coming.time
                self._arrive(coming)
                coming = next(arrivals, None)
            else:
                self.now, _, action, arguments = heappop(self._events)
                action(*arguments)
            if progress is not None and len(self.completions) >= told + 1000:
                told = len(self.completions)
                progress(told)

    def _at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._events, (time, self._count, action, arguments))

    def _step(self, index: int) -> None:
        """A replica's step, or run of steps, is over."""
        reports = self._fleet.advance(index)
        if reports is None:
            return  # it was interrupted, and looked at before
        for report in reports:
            if self._cluster.per_request:
                self._at(self.now + self._cluster.per_request, self._receive, report)
            else:
                self._receive(report)
        self._fleet.schedule(index)

    # What the runtime does -----------------------------------------------------------------------

    def _arrive(self, arrival: Arrival) -> None:
        question = self._questions.get(arrival.question)
        if question is None:
            raise DataError(
                f"arrival {arrival.id} asks {arrival.question!r}, which was not recorded"
            )
        chat = arrival.kind == "chat"
        samples = 1 if chat else of_group(self._samples, arrival.group)
        order = question.order(f"{self._seed}/{arrival.id}", samples)
        build = self_consistency() if chat else self._program
        query = VirtualQuery(arrival, question, order, build(recorded_task(arrival.id), samples))
        self._open_queries[arrival.id] = query
        self._fleet.router.arrive(arrival.id)
        if self._forecast is not None:
            ranked = self._ranked.get(arrival.question)
            forecast = of_group(self._forecast, arrival.group)
            query.forecast = forecast.query(ranked)
        self._expect(query)
        if self._cluster.per_query:
            self._at(self.now + self._cluster.per_query, self._open, query)
        else:
            self._open(query)

    def _open(self, query: VirtualQuery) -> None:
        arrival = query.arrival
        if self._when_due and arrival.deadline is not None:
            self._at(arrival.time + (1 - AHEAD) * arrival.deadline, self._press, query)
        self._allocator.admit(query)
        self._carry_out(review(query, self._allocator))

    def _press(self, query: VirtualQuery) -> None:
        self._carry_out(press(query))

    def _receive(self, report: Report) -> None:
        owner = self._owners.get(report.job)
        if owner is None:
            return  # its query has stopped
        query, request = owner
        sample = query.order[request.index]
        question, tokens = query.question, report.tokens
        logprobs, confidence = question.logprobs(sample), question.confidence(sample)
        if not report.finished:
            known = None if logprobs is None else logprobs[:tokens]
            sure = None if confidence is None else confidence[:tokens]
            query.program.receive(Progress(request.id, "", tokens, sure, known))
            self._carry_out(watch(query))
            return
        text = question.text(sample)
        generation = Generation(request.id, text, tokens, confidence=confidence, logprobs=logprobs)
        self._fold(query, report.job, generation)

    def _fold(self, query: VirtualQuery, job: Job, generation: Generation) -> None:
        """Bill a generation, tell its program and decide."""
        self._leave(query, job)
        if generation.finish_reason == "aborted":
            query.bill.cut += generation.tokens
        else:
            query.bill.finished += generation.tokens
        query.program.receive(generation)
        self._learn(query, generation.tokens)
        self._carry_out(review(query, self._allocator))

    def _learn(self, query: VirtualQuery, tokens: int) -> None:
        if query.forecast is not None:
            query.forecast.sample_ended(tokens)
            return
        mean, ended = self._mean_tokens
        self._mean_tokens = [mean + (tokens - mean) / (ended + 1), ended + 1]

    def _leave(self, query: VirtualQuery, job: Job) -> None:
        del self._owners[job]
        self._fleet.end(job)
        query.leave(job)

    # Decisions, and how they are carried out ----------------------------------------------------

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            query = decision.query
            assert isinstance(query, VirtualQuery), "the allocator has its queries from us"
            match decision:
                case Start(_, request):
                    self._start(query, request)
                case Cut(_, requests):
                    self._cut(query, requests)
                case Stop(_, reason):
                    self._stop(query, reason)
                case Hint():
                    self._expect(query)
                    self._hint(query)

    def _start(self, query: VirtualQuery, request: Request) -> None:
        if request.kind != "sample" or request.prefix:
            raise DataError(f"{request.id}: only whole samples can be had from a trace")
        job = query.start(request)
        self._owners[job] = (query, request)
        self._fleet.submit(job, request)

    def _latest(self, gang: str) -> Hints | None:
        return self._open_queries[gang].latest_hints(self.now)

    def _cut(self, query: VirtualQuery, requests: Iterable[str]) -> None:
        for name in requests:
            if (job := query.jobs.get(name)) is not None:
                tokens = self._fleet.abort(job)
                self._fold(query, job, Generation(name, "", tokens, finish_reason="aborted"))

    def _hint(self, query: VirtualQuery) -> None:
        """Tell the replica's scheduler what is left to do."""
        ranked = self._ranked.get(query.arrival.question)
        if query.forecast is None and ranked is None:
            return
        hints = query.hints(None if ranked is None else ranked.rank, self.now)
        self._fleet.hint(query.program.id, hints)

    def _stop(self, query: VirtualQuery, reason: StopReason) -> None:
        if query.stopping:
            return
        query.stopping = True
        self._allocator.release(query)
        if query.forecast is not None:
            query.forecast.ended(query.program.votes(), by_rule=reason != "deadline")
        for job in list(query.jobs.values()):
            query.bill.cut += self._fleet.abort(job)
            self._leave(query, job)
        self._fleet.router.leave(query.arrival.id)
        del self._open_queries[query.arrival.id]
        arrival, first = query.arrival, query.first_token
        self.completions.append(
            Completion(
                arrival=arrival,
                latency=self.now - arrival.time,
                first_service=None if first is None else first - arrival.time,
                correct=query.question.is_right(query.program.answer().value),
                tokens=query.bill.output,
                samples=query.program.votes().n,
                reason=reason,
            )
        )

    def _expect(self, query: VirtualQuery) -> None:
        """Note how many tokens a query will still need."""
        votes = query.program.votes()
        if query.forecast is not None:
            running = [self._fleet.generated(job) for job in query.jobs.values()]
            expected = query.forecast.remaining(votes, running).tokens
        else:
            expected = votes.remaining * self._mean_tokens[0]
        query.expected = expected
        self._fleet.router.expect(query.arrival.id, expected)
