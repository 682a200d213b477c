"""One replica of an engine in virtual time: continuous batching as vLLM does it, jump by jump.

A state machine without clock or threads: the caller submits and aborts requests and calls `advance`
when a step, or a run of steps, is due. Between two events all running requests decode one token a
step, so a run of steps takes a time in closed form, and its need of KV blocks is counted by the
residues of the sequence lengths modulo the block size. The cost of a simulation goes by the number
of requests, not by their tokens.

The rules are those of `vllm/v1/core/sched/scheduler.py`: running requests go first, in order; a prompt
is computed in parts where the step's budget of tokens is used up; a request that finds no free block
preempts the last of the running ones, which computes everything anew later; the waiting are admitted
in the order of the queue until one does not fit, and none in a step that preempted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple, Protocol

from dynasor.engines.kv_blocks import Holding, KVBlocks
from dynasor.engines.step_time import StepTime
from dynasor.errors import EngineError
from dynasor.scheduling.gang import Hints

RECONSIDER = 1.0
"""Seconds after which a queue whose first request does not fit is asked again: its order may change."""
_PACE_MEMORY = 0.95  # a step, as in the engine


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Size and speed of one replica.

    Attributes:
        step_time: seconds of a step.
        max_running: requests in the batch at once.
        max_batched_tokens: tokens that one step computes at most.
        kv_blocks: blocks of the KV cache that requests can use.
        block_size: tokens a block.
    """

    step_time: StepTime
    max_running: int = 128
    max_batched_tokens: int = 8192
    kv_blocks: int = 1 << 20
    block_size: int = 16

    def __post_init__(self) -> None:
        for name in ("max_running", "max_batched_tokens", "kv_blocks", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")


class Job:
    """A request whose output is known beforehand.

    Args:
        name: unique.
        gang: id of its gang.
        prefix: name of its prompt; jobs with the same one share its KV blocks.
        prompt: tokens of the prompt, 1 or more.
        output: tokens that it will generate, 1 or more.
        report_every: output tokens between two reports, or None.
    """

    __slots__ = (
        "cached", "computed", "first_token", "gang", "generated", "held", "name", "output",
        "prefix", "prompt", "report_every", "state", "stop",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        gang: str,
        prefix: str,
        prompt: int,
        output: int,
        report_every: int | None = None,
    ) -> None:
        if prompt < 1 or output < 1:
            raise ValueError(f"prompt and output must be 1 or more tokens, not {prompt}, {output}")
        self.name = name
        self.gang = gang
        self.prefix = prefix
        self.prompt = prompt
        self.output = output
        self.report_every = report_every
        self.generated = 0
        """Output tokens so far; while it decodes, as of the moment at which it began to."""
        self.computed = 0
        """Tokens in the KV cache; while it decodes, less the replica's count of steps."""
        self.cached = 0
        """Tokens of the prompt that were found in the cache when it was first admitted."""
        self.first_token: float | None = None
        """When the first token was there."""
        self.held: Holding | None = None
        self.state = _WAITING
        self.stop = 0
        """Step of the replica after which it ends or reports."""


_WAITING, _PREFILLING, _DECODING, _CUT, _ENDED = range(5)


class Queue(Protocol):
    """Who is admitted next: a `GangQueue` or an `ArrivalQueue` of jobs."""

    pace: float

    def add(self, item: Job, gang: str | None, name: str, hints: Hints | None = None) -> None:
        """A request has come."""
        ...

    def give_back(self, item: Job) -> None:
        """It was preempted."""
        ...

    def end(self, item: Job, served: int = 0, finished: bool = False) -> None:
        """It has ended."""
        ...

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang."""
        ...

    def peek(self) -> Job | None:
        """The request to admit next."""
        ...

    def take(self) -> Job:
        """Admit it."""
        ...

    def standing(self, item: Job) -> tuple[float, ...]:
        """Sort key of a running request; the last is preempted first."""
        ...

    def reconsider(self) -> None:
        """Time has passed."""
        ...

    def __len__(self) -> int: ...


class Report(NamedTuple):
    """A job that came to its end, or has news."""

    job: Job
    tokens: int
    finished: bool


@dataclass(slots=True)
class Counters:
    """What a replica did.

    Attributes:
        steps: engine steps.
        seconds: in which it computed.
        preemptions: requests that lost their KV blocks.
        recomputed_tokens: tokens in the blocks that they lost.
        kv_peak: largest share of the KV blocks in use.
        kv_sum: share of the KV blocks in use, summed over steps.
        running_sum: requests in the batch, summed over steps.
    """

    steps: int = 0
    seconds: float = 0.0
    preemptions: int = 0
    recomputed_tokens: int = 0
    kv_peak: float = 0.0
    kv_sum: float = 0.0
    running_sum: int = 0


@dataclass(slots=True)
class _Run:
    """Steps under way.

    Attributes:
        start: time.
        steps: how many.
        single: one step whose KV blocks are taken; else all requests decode, and what they need is
            taken at the end.
        decoding: requests that decode.
        context: tokens that these had in the cache at the start.
    """

    start: float
    steps: int
    single: bool
    decoding: int
    context: int


@dataclass(slots=True)
class _Step:
    """A step that is being put together.

    Attributes:
        left: tokens that it may still compute.
        prefill, context: tokens, see `StepTime`.
        decoding: requests that get one more token without having been in the prompt phase.
    """

    left: int
    prefill: int = 0
    context: int = 0
    decoding: int = 0


class Replica:
    """See the module.

    Args:
        settings: size and speed.
        queue: builds the queue of waiting jobs from the replica's clock.
    """

    def __init__(
        self, settings: ReplicaSettings, queue: Callable[[Callable[[], float]], Queue]
    ) -> None:
        self.counters = Counters()
        self.due = inf
        """When `advance` is to be called next; inf where nothing runs or waits."""
        self._now = 0.0
        self._settings = settings
        self._time = settings.step_time
        self._queue = queue(lambda: self._now)
        self._blocks = KVBlocks(settings.kv_blocks, settings.block_size)
        self._running: dict[Job, None] = {}  # in order of admission
        self._prefilling: dict[Job, None] = {}  # of these, who is not in step with the others
        self._steps = 0  # since the beginning
        self._decoding = 0
        self._context = 0  # tokens in the cache of those that decode
        # Of those that decode: how many need a block in a step whose number is this, modulo the size.
        self._crossing = [0] * settings.block_size
        self._stops: list[tuple[int, int, Job]] = []  # heap by step; of those that left: void
        self._pushed = 0
        self._run: _Run | None = None
        self._sampling: list[Job] = []  # whose prompt is complete with the step under way
        self._cut: list[Job] = []  # leave when the step under way is done

    # From outside -------------------------------------------------------------------------------

    @property
    def free_blocks(self) -> int:
        """KV blocks that no request uses."""
        return self._blocks.free

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    def submit(self, job: Job, now: float, hints: Hints | None = None) -> None:
        """A request comes at `now`.

        Raises:
            EngineError: if it is larger than the KV cache.
        """
        needed = self._blocks.blocks(job.prompt + job.output - 1)
        if needed > self._blocks.total:
            raise EngineError(
                f"request {job.name} of {job.prompt} + {job.output} tokens needs {needed} KV blocks "
                f"and the replica has {self._blocks.total}: give it more, or shorten the output"
            )
        self._now = now
        self._queue.add(job, job.gang, job.name, hints)
        self._queue_changed()

    def hint(self, gang: str, hints: Hints, now: float) -> None:
        """News of a gang."""
        self._now = now
        self._queue.hint(gang, hints)
        self._queue_changed()

    def abort(self, job: Job, now: float) -> int:
        """Cut a job; its place is free from the end of the step under way.

        Returns:
            its output tokens so far.
        """
        self._now = now
        if job.state == _WAITING:
            self._queue.end(job, job.generated)
            job.state = _ENDED
            self._queue_changed()
        elif job.state in (_PREFILLING, _DECODING):
            if job.state == _DECODING:
                generated = job.computed + self._steps + self._steps_done(now) - job.prompt + 1
                self._leave_step(job)
                job.generated = generated
            self._prefilling.pop(job, None)
            job.state = _CUT
            self._cut.append(job)
            if self._run is None:
                self._drop_cut()
            else:
                self._interrupt(now)
        return job.generated

    def advance(self) -> list[Report]:
        """The steps that were due are done: who has ended, who has news.

        The caller reacts, with `submit`, `abort` and `hint` at the same time, and calls `schedule`.
        """
        self._now = self.due
        run, self._run = self._run, None
        if run is None:
            return []
        self._finish_run(run)
        self._drop_cut()
        reports: list[Report] = []
        for job in self._sampling:
            if job.state == _PREFILLING:
                self._first_or_next_token(job, reports)
        self._sampling.clear()
        self._collect(reports)
        return reports

    def schedule(self) -> None:
        """Begin what runs next, at the time of the last `advance`; sets `due`."""
        self._queue.reconsider()
        step = _Step(self._settings.max_batched_tokens)
        crossing = self._blocks_for(1)
        if self._prefilling or self._decoding > step.left:
            if not self._serve_in_order(step):
                self._admit(step)
            self._begin_step(step)
        elif crossing > self._blocks.free:
            self._make_room()
            step.left -= self._decoding
            self._begin_step(step)
        elif self._head_fits(crossing):
            self._blocks.take(crossing)
            step.left -= self._decoding
            self._admit(step)
            self._begin_step(step)
        elif self._decoding:
            self._begin_run()
        else:
            self.due = inf

    # The next step ------------------------------------------------------------------------------

    def _head_fits(self, reserved: int) -> bool:
        """Whether at least one of the waiting can be admitted to a step in which all others decode."""
        if self._decoding >= self._settings.max_batched_tokens or not self._has_place():
            return False
        head = self._queue.peek()
        if head is None:
            return False
        cost = self._blocks.cost(head.prefix, head.prompt, head.prompt + head.generated)
        return cost <= self._blocks.free - reserved

    def _has_place(self) -> bool:
        return len(self._queue) > 0 and len(self._running) < self._settings.max_running

    def _serve_in_order(self, step: _Step) -> bool:
        """Give tokens and blocks to the running, one by one; True if some were preempted for it."""
        order = sorted(self._running, key=self._queue.standing)
        count = len(order)
        served = 0
        while served < len(order) and step.left:
            job = order[served]
            decodes = job.state == _DECODING
            tokens = job.computed + self._steps if decodes else job.computed
            more = 1 if decodes else min(job.prompt + job.generated - tokens, step.left)
            need = self._blocks.blocks(tokens + more) - self._blocks.blocks(tokens)
            while need > self._blocks.free and len(order) > served:
                self._preempt(order.pop())
            if len(order) == served:
                break  # it was itself the last
            if decodes:
                self._blocks.take(need)
                step.left -= 1
            else:
                self._prefill(job, more, step)
            served += 1
        for job in order[served:]:
            if job.state == _DECODING:
                self._leave_step(job)
                job.state = _PREFILLING
                self._prefilling[job] = None
        return len(order) < count

    def _make_room(self) -> None:
        """Preempt the last until the blocks suffice for the others, all of which decode."""
        while (blocks := self._blocks_for(1)) > self._blocks.free:
            # The first of the largest in reverse is the last in a stable order.
            self._preempt(max(reversed(self._running), key=self._queue.standing))
        self._blocks.take(blocks)

    def _preempt(self, job: Job) -> None:
        if job.state == _DECODING:
            self._leave_step(job)
        assert job.held is not None, "a running request has blocks"
        self.counters.preemptions += 1
        self.counters.recomputed_tokens += job.computed
        self._blocks.release(job.held, job)
        job.held, job.computed, job.state = None, 0, _WAITING
        del self._running[job]
        self._prefilling.pop(job, None)
        self._queue.give_back(job)

    def _admit(self, step: _Step) -> None:
        """Admit from the queue until one does not fit."""
        while step.left and self._has_place() and (job := self._queue.peek()) is not None:
            tokens = job.prompt + job.generated
            if self._blocks.cost(job.prefix, job.prompt, tokens) > self._blocks.free:
                return
            self._queue.take()
            job.held = self._blocks.admit(job, job.prefix, job.prompt, tokens)
            job.computed = job.held.tokens
            if job.first_token is None:
                job.cached = job.computed
            job.state = _PREFILLING
            self._running[job] = self._prefilling[job] = None
            self._prefill(job, min(tokens - job.computed, step.left), step)

    def _prefill(self, job: Job, tokens: int, step: _Step) -> None:
        """Compute so many tokens of a request in this step."""
        assert job.held is not None, "a running request has blocks"
        job.computed += tokens
        self._blocks.grow(job.held, job.computed)
        if job.computed == job.prompt + job.generated:
            self._sampling.append(job)
        step.left -= tokens
        step.context += job.computed
        if tokens == 1 and job.generated:
            step.decoding += 1
        else:
            step.prefill += tokens

    def _begin_step(self, step: _Step) -> None:
        if not self._running:
            self.due = inf
            return
        decoding = self._decoding + step.decoding
        context = self._context + self._decoding + step.context
        self._run = _Run(self._now, 1, True, self._decoding, self._context)
        self.due = self._now + self._time.step(decoding, step.prefill, context)

    def _begin_run(self) -> None:
        """As many steps as nothing interrupts."""
        while self._stops[0][2].state != _DECODING or self._stops[0][2].stop != self._stops[0][0]:
            heappop(self._stops)
        steps = self._stops[0][0] - self._steps
        if self._blocks_for(steps) > self._blocks.free:
            steps = _last(steps, lambda k: self._blocks_for(k) <= self._blocks.free)
        self._run = run = _Run(self._now, steps, False, self._decoding, self._context)
        self.due = self._now + self._seconds(run, steps)
        if self._has_place():
            self._interrupt(self._now + RECONSIDER)

    def _seconds(self, run: _Run, steps: int) -> float:
        return self._time.decode(steps, run.decoding, run.context)

    def _blocks_for(self, steps: int) -> int:
        """Blocks that those that decode need for so many steps."""
        size = self._settings.block_size
        rounds, rest = divmod(steps, size)
        first = self._steps % size
        blocks = sum(self._crossing[first : first + rest])
        if first + rest > size:
            blocks += sum(self._crossing[: first + rest - size])
        return rounds * self._decoding + blocks

    # Interruptions ------------------------------------------------------------------------------

    def _queue_changed(self) -> None:
        if self._run is None:
            self.due = self._now
        elif self._has_place():
            self._interrupt(self._now)

    def _interrupt(self, now: float) -> None:
        """End a run of steps with the first one that ends at `now` or later."""
        run = self._run
        if run is None or run.single or self.due <= now:
            return
        passed = now - run.start
        run.steps = 1 + _last(run.steps, lambda k: self._seconds(run, k) < passed)
        self.due = run.start + self._seconds(run, run.steps)

    def _steps_done(self, now: float) -> int:
        """Steps of the run under way that are over at `now`."""
        run = self._run
        if run is None:
            return 0
        if now >= self.due:
            return run.steps
        return _last(
            run.steps, lambda k: not run.single and run.start + self._seconds(run, k) <= now
        )

    # The end of a step --------------------------------------------------------------------------

    def _finish_run(self, run: _Run) -> None:
        counters, total = self.counters, self._blocks.total
        before = total - self._blocks.free
        if not run.single:
            self._blocks.take(self._blocks_for(run.steps))
        self._steps += run.steps
        self._context += self._decoding * run.steps
        seconds, after = self.due - run.start, total - self._blocks.free
        counters.steps += run.steps
        counters.seconds += seconds
        counters.kv_peak = max(counters.kv_peak, after / total)
        counters.kv_sum += run.steps * (before + after) / (2 * total)
        counters.running_sum += run.steps * len(self._running)
        old = _PACE_MEMORY**run.steps if counters.steps > run.steps else 0.0
        self._queue.pace = old * self._queue.pace + (1 - old) * seconds / run.steps

    def _drop_cut(self) -> None:
        for job in self._cut:
            self._queue.end(job, job.generated)
            self._forget(job)
        self._cut.clear()

    def _first_or_next_token(self, job: Job, reports: list[Report]) -> None:
        """A request that was apart got a token: from now on it is in step with the others."""
        job.generated += 1
        if job.first_token is None:
            job.first_token = self._now
        del self._prefilling[job]
        if job.generated == job.output:
            self._end(job, reports)
            return
        if job.report_every and job.generated % job.report_every == 0:
            reports.append(Report(job, job.generated, False))
        self._decoding += 1
        self._context += job.computed
        job.computed -= self._steps
        self._crossing[-job.computed % self._settings.block_size] += 1
        job.state = _DECODING
        self._set_stop(job, job.generated)

    def _leave_step(self, job: Job) -> None:
        """A request that decodes is on its own; its counts are those of the last step's end."""
        assert job.held is not None, "a running request has blocks"
        self._crossing[-job.computed % self._settings.block_size] -= 1
        job.computed += self._steps
        job.generated = job.computed - job.prompt + 1
        self._decoding -= 1
        self._context -= job.computed
        # In a single step under way the block for its next token is already taken.
        ahead = 1 if self._run is not None and self._run.single else 0
        job.held.tokens = job.computed + ahead

    def _set_stop(self, job: Job, generated: int) -> None:
        target = job.output
        if job.report_every:
            target = min(target, (generated // job.report_every + 1) * job.report_every)
        job.stop = self._steps + target - generated
        self._pushed += 1
        heappush(self._stops, (job.stop, self._pushed, job))

    def _collect(self, reports: list[Report]) -> None:
        """Those that decode and have come to their end, or to a report."""
        while self._stops and self._stops[0][0] <= self._steps:
            stop, _, job = heappop(self._stops)
            if job.state != _DECODING or job.stop != stop:
                continue
            generated = job.computed + self._steps - job.prompt + 1
            if generated == job.output:
                self._leave_step(job)
                self._end(job, reports)
            else:
                reports.append(Report(job, generated, False))
                self._set_stop(job, generated)

    def _end(self, job: Job, reports: list[Report]) -> None:
        self._queue.end(job, job.generated, True)
        self._forget(job)
        reports.append(Report(job, job.generated, True))

    def _forget(self, job: Job) -> None:
        assert job.held is not None, "a running request has blocks"
        self._blocks.release(job.held, None)
        job.held, job.state = None, _ENDED
        del self._running[job]


def _last(most: int, holds: Callable[[int], bool]) -> int:
    """Largest number from 0 to `most` for which `holds`, which is true up to some number."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
