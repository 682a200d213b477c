"""An event loop in place of the clock: what the runtime does with an engine, done with replicas.

In the same order as `dynasor.runtime`: a generation is billed, folded into its program, the allocator
reviews, the scheduler gets hints, what was granted is started, and a query that stops has what it runs
cut. Decisions take no time, but for what the front end is said to take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Any

from algorithms.program import Generation, Progress, Request
from algorithms.self_consistency import Weigh
from certaindex.early_cut import EarlyCut
from dynasor.allocator import Allocator, LiveQuery, StopReason
from dynasor.bench.recorded import RecordedQuestion, program_of
from dynasor.bench.workload import Arrival, Completion
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated import Replica
from dynasor.engines.simulated_job import Job, Report
from dynasor.errors import DataError
from dynasor.ranking.scorer import Ranked
from dynasor.runtime import AHEAD
from dynasor.scheduling.forecast import Forecast, QueryForecast
from dynasor.scheduling.gang import Hints


@dataclass(frozen=True, slots=True)
class Cluster:
    """Replicas behind one front end.

    Attributes:
        replica: size and speed of each.
        replicas: how many.
        per_query: seconds of the front end from a query's arrival to its first requests.
        per_request: seconds of the front end from the end of a request to the decision on it.
    """

    replica: ReplicaSettings
    replicas: int = 1
    per_query: float = 0.0
    per_request: float = 0.0

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas must be 1 or more, not {self.replicas}")
        if self.per_query < 0 or self.per_request < 0:
            raise ValueError(
                "per_query and per_request must be 0 or more seconds, not "
                f"{self.per_query} and {self.per_request}"
            )


class _Query(LiveQuery):
    """A live query with what only the simulation needs."""

    def __init__(
        self,
        arrival: Arrival,
        question: RecordedQuestion,
        order: list[int],
        weigh: Weigh | None,
        cut: EarlyCut | None,
    ) -> None:
        super().__init__(program_of(arrival.id, len(order), weigh, cut))
        self.arrival = arrival
        self.question = question
        self.order = order
        self.jobs: dict[str, Job] = {}  # in flight
        self.replica = 0
        self.expected = 0.0  # tokens to come, as the router counts them
        self.hints: tuple[Hints, float] | None = None  # the latest, and their time
        self.first_token: float | None = None
        self.late = False  # its best answer so far is wanted now
        self.forecast: QueryForecast | None = None


class FrontEnd:
    """The event loop; see the module.

    Args:
        replicas: what serves.
        cluster: what the front end takes.
        questions, allocator, samples, forecast, ranked, when_due, weigh, cut, seed: see `simulate`.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        cluster: Cluster,
        questions: Mapping[str, RecordedQuestion],
        allocator: Allocator,
        samples: int,
        forecast: Forecast | None,
        ranked: Mapping[str, Ranked],
        when_due: bool,
        weigh: Weigh | None,
        cut: EarlyCut | None,
        seed: str,
    ) -> None:
        self.completions: list[Completion] = []
        self.now = 0.0
        self._replicas = replicas
        self._questions = questions
        self._cluster = cluster
        self._allocator = allocator
        self._samples = samples
        self._forecast = forecast
        self._ranked = ranked
        self._when_due = when_due
        self._weigh = weigh
        self._early_cut = cut
        self._seed = seed
        self._mean_tokens = [500.0, 0]  # of ended samples, and how many; for the router
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._wake = [inf] * cluster.replicas
        self._load = [0.0] * cluster.replicas
        self._owners: dict[Job, tuple[_Query, Request]] = {}

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

    def _rouse(self, index: int) -> None:
        """See that a replica is looked at when it is due."""
        due = self._replicas[index].due
        if due < self._wake[index]:
            self._wake[index] = due
            self._at(due, self._step, index)

    def _step(self, index: int) -> None:
        """A replica's step, or run of steps, is over."""
        if self.now != self._wake[index]:
            return  # it was interrupted, and looked at before
        replica = self._replicas[index]
        for report in replica.advance():
            if self._cluster.per_request:
                self._at(self.now + self._cluster.per_request, self._receive, report)
            else:
                self._receive(report)
        replica.schedule()
        self._wake[index] = inf
        self._rouse(index)

    # What the runtime does -----------------------------------------------------------------------

    def _arrive(self, arrival: Arrival) -> None:
        question = self._questions.get(arrival.question)
        if question is None:
            raise DataError(
                f"arrival {arrival.id} asks {arrival.question!r}, which was not recorded"
            )
        samples = self._samples if arrival.kind == "query" else 1
        order = question.order(f"{self._seed}/{arrival.id}", samples)
        query = _Query(arrival, question, order, self._weigh, self._early_cut)
        query.replica = min(range(len(self._load)), key=self._load.__getitem__)
        if self._forecast is not None:
            ranked = self._ranked.get(arrival.question)
            query.forecast = self._forecast.query(None if ranked is None else ranked.lengths)
        self._expect(query)
        if self._cluster.per_query:
            self._at(self.now + self._cluster.per_query, self._open, query)
        else:
            self._open(query)

    def _open(self, query: _Query) -> None:
        arrival = query.arrival
        if self._when_due and arrival.deadline is not None:
            self._at(arrival.time + (1 - AHEAD) * arrival.deadline, self._press, query)
        self._allocator.admit(query)
        self._review(query)

    def _press(self, query: _Query) -> None:
        """The answer is due."""
        query.late = True
        if query.program.votes().n and not query.stopping:
            self._stop(query, "deadline")

    def _review(self, query: _Query) -> None:
        """Ask what to do with a query that has news, then start whatever was granted to anyone."""
        if not query.stopping:
            self._cut(query, query.program.cancelled())
            reason = self._allocator.review(query)
            if reason is None and query.late and query.program.votes().n:
                reason = "deadline"
            if reason is not None:
                self._stop(query, reason)
            else:
                self._expect(query)
                self._hint(query)
        for granted in self._allocator.grants():
            assert isinstance(granted.query, _Query)
            for request in granted.query.program.propose(granted.requests):
                self._start(granted.query, request)
        for idle in self._allocator.spent():
            assert isinstance(idle, _Query)
            self._stop(idle, "budget")

    def _start(self, query: _Query, request: Request) -> None:
        job = Job(
            request.id,
            query.arrival.id,
            query.arrival.question,
            query.question.prompt_tokens,
            query.question.tokens(query.order[request.index]),
            request.report_every,
        )
        query.in_flight.add(request.id)
        query.jobs[request.id] = job
        self._owners[job] = (query, request)
        self._replicas[query.replica].submit(job, self.now, self._latest(query))
        self._rouse(query.replica)

    def _receive(self, report: Report) -> None:
        owner = self._owners.get(report.job)
        if owner is None:
            return  # its query has stopped
        query, request = owner
        sample = query.order[request.index]
        text, logprobs = query.question.text(sample), query.question.logprobs(sample)
        if not report.finished:
            known = None if logprobs is None else logprobs[: report.tokens]
            query.program.receive(Progress(request.id, "", report.tokens, logprobs=known))
            self._cut(query, query.program.cancelled())
            return
        generation = Generation(request.id, text, report.tokens, logprobs=logprobs)
        self._fold(query, report.job, generation)

    def _fold(self, query: _Query, job: Job, generation: Generation) -> None:
        """Bill a generation, tell its program and decide."""
        self._leave(query, job)
        if generation.finish_reason == "aborted":
            query.bill.cut += generation.tokens
        else:
            query.bill.finished += generation.tokens
        query.program.receive(generation)
        self._learn(query, generation.tokens)
        self._review(query)

    def _learn(self, query: _Query, tokens: int) -> None:
        if query.forecast is not None:
            query.forecast.sample_ended(tokens)
            return
        mean, ended = self._mean_tokens
        self._mean_tokens = [mean + (tokens - mean) / (ended + 1), ended + 1]

    def _leave(self, query: _Query, job: Job) -> None:
        """A job is over: forget it, but for the bill."""
        del self._owners[job], query.jobs[job.name]
        query.in_flight.discard(job.name)
        query.bill.prompt += job.prompt
        query.bill.cached += job.cached or 0
        if job.first_token is not None:
            earlier = inf if query.first_token is None else query.first_token
            query.first_token = min(job.first_token, earlier)

    def _hint(self, query: _Query) -> None:
        """Tell the replica's scheduler what is left to do."""
        ranked = self._ranked.get(query.arrival.question)
        if query.forecast is None and ranked is None:
            return
        program, deadline = query.program, query.arrival.deadline
        hints = Hints(
            tokens=None if query.forecast is None else query.expected,
            rank=None if ranked is None else ranked.rank,
            certainty=program.certainty().value,
            deadline=None if deadline is None else query.arrival.time + deadline - self.now,
        )
        query.hints = (hints, self.now)
        self._replicas[query.replica].hint(program.id, hints, self.now)
        self._rouse(query.replica)

    def _latest(self, query: _Query) -> Hints | None:
        """The latest hints, as of now."""
        if query.hints is None:
            return None
        hints, then = query.hints
        if hints.deadline is None:
            return hints
        left = hints.deadline - (self.now - then)
        return Hints(hints.tokens, hints.rank, hints.certainty, left)

    def _cut(self, query: _Query, requests: Iterable[str]) -> None:
        """Abort some requests of a query that goes on."""
        for name in requests:
            if (job := query.jobs.get(name)) is not None:
                tokens = self._abort(query, job)
                self._fold(query, job, Generation(name, "", tokens, finish_reason="aborted"))

    def _abort(self, query: _Query, job: Job) -> int:
        tokens = self._replicas[query.replica].abort(job, self.now)
        self._rouse(query.replica)
        return tokens

    def _stop(self, query: _Query, reason: StopReason) -> None:
        if query.stopping:
            return
        query.stopping = True
        self._allocator.release(query)
        if query.forecast is not None:
            query.forecast.ended(query.program.votes(), by_rule=reason != "deadline")
        self._load[query.replica] -= query.expected
        for job in list(query.jobs.values()):
            query.bill.cut += self._abort(query, job)
            self._leave(query, job)
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

    # The router ----------------------------------------------------------------------------------

    def _expect(self, query: _Query) -> None:
        """Note how many tokens a query will still need."""
        votes = query.program.votes()
        if query.forecast is not None:
            replica = self._replicas[query.replica]
            running = [replica.generated(job, self.now) for job in query.jobs.values()]
            expected = query.forecast.remaining(votes, running).tokens
        else:
            expected = votes.remaining * self._mean_tokens[0]
        self._load[query.replica] += expected - query.expected
        query.expected = expected
