"""One replica of an engine in virtual time: continuous batching as vLLM does it, jump by jump.

A state machine without clock or threads: the caller submits and aborts requests and calls `advance`
when a step, or a run of steps, is due. Between two events all running requests decode one token a
step, so a run of steps takes a time in closed form, and its need of KV blocks is counted by residues.
The cost of a simulation goes by the number of requests, not by their tokens.

The rules are those of `vllm/v1/core/sched/scheduler.py`: running requests go first, in order; a prompt
is computed in parts where the step's budget of tokens is used up; a request that finds no free block
preempts the last of the running ones, which computes everything anew later; the waiting are admitted
in the order of the queue until one does not fit, and none in a step that preempted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf

from dynasor.engines.kv_blocks import KVBlocks
from dynasor.engines.lockstep import Lockstep
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated_job import Counters, Job, Queue, Report, State
from dynasor.engines.step_run import StepRun, last_that_holds
from dynasor.errors import EngineError
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.memory import expected_left, peak_tokens

RECONSIDER = 1.0
"""Seconds after which a queue whose first request does not fit is asked again: its order may change."""
_PACE_MEMORY = 0.99  # a step, as in the engine


@dataclass(slots=True)
class _Step:
    """What the requests that are not in lockstep add to the next step.

    Attributes:
        left: tokens that the step may still compute.
        prefill, context, decoding: see `Step`.
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
        self._apart: dict[Job, None] = {}  # of these, who is not in lockstep
        self._lockstep = Lockstep(settings.block_size)
        self._run: StepRun | None = None
        self._sampling: list[Job] = []  # get out of the step under way the token they wait for
        self._cut: list[Job] = []

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

    # From outside -------------------------------------------------------------------------------

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

    def generated(self, job: Job, now: float) -> int:
        """Output tokens of a job so far."""
        if job.state is State.DECODING:
            return self._lockstep.generated(job) + self._steps_done(now)
        return job.generated

    def abort(self, job: Job, now: float) -> int:
        """Cut a job; its place is free from the end of the step under way.

        Returns:
            its output tokens so far.
        """
        self._now = now
        if job.state is State.WAITING:
            self._queue.end(job, job.generated)
            job.state = State.ENDED
            self._queue_changed()
        elif job.state in (State.APART, State.DECODING):
            job.generated = self.generated(job, now)
            job.state = State.CUT
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
        ended: dict[Job, None] = {}
        for job in self._sampling:
            if job.state is State.APART:
                self._sample(job, ended, reports)
        self._sampling.clear()
        for job, generated in self._lockstep.stopped():
            if generated == job.output:
                self._leave_lockstep(job)
                ended[job] = None
            else:
                reports.append(Report(job, generated, False))
        for job in self._in_order(ended):
            self._queue.end(job, job.generated, True)
            self._forget(job)
            reports.append(Report(job, job.generated, True))
        return reports

    def schedule(self) -> None:
        """Begin what runs next, at the time of the last `advance`; sets `due`."""
        self._queue.reconsider()
        step = _Step(self._settings.max_batched_tokens)
        needed = self._lockstep.blocks_for(1)
        if self._apart or self._lockstep.count > step.left:
            if not self._serve_in_order(step):
                self._admit(step)
            self._begin_step(step)
        elif needed > self._blocks.free:
            self._make_room()
            self._begin_step(step)
        elif self._head_fits(needed):
            self._blocks.take(needed)
            step.left -= self._lockstep.count
            self._admit(step)
            self._begin_step(step)
        elif self._lockstep.count:
            self._begin_run()
        else:
            self.due = inf

    # The next step ------------------------------------------------------------------------------

    def _has_place(self) -> bool:
        return len(self._queue) > 0 and len(self._running) < self._settings.max_running

    def _head_fits(self, reserved: int) -> bool:
        """Whether one of the waiting can be admitted to a step in which all others decode."""
        if self._lockstep.count >= self._settings.max_batched_tokens or not self._has_place():
            return False
        head = self._queue.peek()
        if head is None:
            return False
        cost = self._blocks.cost(head.prefix, head.prompt + head.generated)
        return cost <= self._blocks.free - reserved and self._has_room(head)

    def _has_room(self, job: Job) -> bool:
        """Whether the batch with this request too is expected to fit in the KV cache to its end."""
        if not self._settings.fit_memory or not self._running:
            return True
        blocks, typical = self._blocks, self._queue.typical
        free = float(blocks.free * blocks.size)
        shared = blocks.shared(job.prefix)
        if free > job.prompt + job.generated + (1 + len(self._running)) * typical:
            return True  # even if all grew from here to their usual length
        batch = []
        for member in self._running:
            decodes = member.state is State.DECODING
            done = self._lockstep.generated(member) if decodes else member.generated
            batch.append((float(done), expected_left(done, typical, inf)))
        kept = job.generated if shared else job.prompt + job.generated
        batch.append((float(kept), expected_left(job.generated, typical, inf)))
        return peak_tokens(kept, batch) <= free

    def _serve_in_order(self, step: _Step) -> bool:
        """Give tokens and blocks to the running, one by one; True if some were preempted for it."""
        order = self._in_order(self._running)
        count, served = len(order), 0
        while served < len(order) and step.left:
            job = order[served]
            decodes = job.state is State.DECODING
            tokens = self._lockstep.tokens(job) if decodes else job.computed
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
                self._compute(job, more, step)
            served += 1
        for job in order[served:]:
            if job.state is State.DECODING:  # it misses this step
                self._leave_lockstep(job)
                job.state = State.APART
                self._apart[job] = None
        return len(order) < count

    def _make_room(self) -> None:
        """Preempt the last until the blocks suffice for the others, all of which decode."""
        while (needed := self._lockstep.blocks_for(1)) > self._blocks.free:
            # The first of the largest in reverse is the last in a stable order.
            self._preempt(max(reversed(self._running), key=self._queue.standing))
        self._blocks.take(needed)

    def _preempt(self, job: Job) -> None:
        if job.state is State.DECODING:
            self._leave_lockstep(job)
        assert job.held is not None, "a running request has blocks"
        self.counters.preemptions += 1
        self.counters.recomputed_tokens += job.computed
        self._blocks.release(job.held, job)
        job.held, job.computed, job.state = None, 0, State.WAITING
        del self._running[job]
        self._apart.pop(job, None)
        self._queue.give_back(job)

    def _admit(self, step: _Step) -> None:
        """Admit from the queue until one does not fit."""
        while step.left and self._has_place() and (job := self._queue.peek()) is not None:
            tokens = job.prompt + job.generated
            if self._blocks.cost(job.prefix, tokens) > self._blocks.free or not self._has_room(job):
                return
            self._queue.take()
            job.held = self._blocks.admit(job, job.prefix, job.prompt, tokens)
            job.computed = job.held.tokens
            if job.cached is None:
                job.cached = job.computed
            job.state = State.APART
            self._running[job] = self._apart[job] = None
            self._compute(job, min(tokens - job.computed, step.left), step)

    def _compute(self, job: Job, tokens: int, step: _Step) -> None:
        """Compute so many tokens of a request that is not in lockstep."""
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
        count, context = self._lockstep.count, self._lockstep.context
        self._run = self._steps_from_now(1, single=True)
        self.due = self._now + self._time.step(
            count + step.decoding, step.prefill, context + count + step.context
        )

    def _begin_run(self) -> None:
        """As many steps as nothing interrupts."""
        steps = self._lockstep.until_stop()
        if self._lockstep.blocks_for(steps) > self._blocks.free:
            steps = last_that_holds(
                steps, lambda k: self._lockstep.blocks_for(k) <= self._blocks.free
            )
        self._run = self._steps_from_now(steps, single=False)
        self.due = self._run.end
        if self._has_place():
            self._interrupt(self._now + RECONSIDER)

    # The step under way -------------------------------------------------------------------------

    def _steps_from_now(self, steps: int, *, single: bool) -> StepRun:
        count, context = self._lockstep.count, self._lockstep.context
        return StepRun(self._time, self._now, steps, single, count, context)

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
        run.end_with_the_step_at(now)
        self.due = run.end

    def _steps_done(self, now: float) -> int:
        """Steps of the run under way that are over at `now`."""
        run = self._run
        if run is None:
            return 0
        return run.steps if now >= self.due else run.done(now)

    def _leave_lockstep(self, job: Job) -> None:
        assert job.held is not None, "a running request has blocks"
        self._lockstep.leave(job)
        job.held.tokens = job.computed

    # The end of a step --------------------------------------------------------------------------

    def _finish_run(self, run: StepRun) -> None:
        counters, total = self.counters, self._blocks.total
        before = total - self._blocks.free
        if not run.single:
            self._blocks.take(self._lockstep.blocks_for(run.steps))
        self._lockstep.go(run.steps)
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
            if job in self._apart:
                del self._apart[job]
            else:
                generated = job.generated  # the token of the last step came too late
                self._leave_lockstep(job)
                job.generated = generated
            self._forget(job)
        self._cut.clear()

    def _sample(self, job: Job, ended: dict[Job, None], reports: list[Report]) -> None:
        """A request that was apart got its token: from now on it is in step with the others."""
        job.generated += 1
        if job.first_token is None:
            job.first_token = self._now
        del self._apart[job]
        if job.generated == job.output:
            ended[job] = None
            return
        if job.report_every and job.generated % job.report_every == 0:
            reports.append(Report(job, job.generated, False))
        self._lockstep.join(job)

    def _in_order(self, jobs: Collection[Job]) -> list[Job]:
        """Some of the running, in the order in which they run."""
        if len(jobs) < 2:
            return list(jobs)
        return sorted((job for job in self._running if job in jobs), key=self._queue.standing)

    def _forget(self, job: Job) -> None:
        assert job.held is not None, "a running request has blocks"
        self._blocks.release(job.held, None)
        job.held, job.state = None, State.ENDED
        del self._running[job]
