"""One replica of an engine in virtual time: continuous batching as vLLM does it, jump by jump.

A state machine without clock or threads: the caller submits and aborts requests and calls `advance`
when a step, or a run of steps, is due. Between two events all running requests decode one token a
step, so a run of steps takes a time in closed form, and its need of KV blocks is counted by residues.
The cost of a simulation goes by the number of requests, not by their tokens. Here is when the steps
are; who is served in them is in `dynasor.engines.simulated_batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from dynasor.engines.kv_blocks import KVBlocks
from dynasor.engines.lockstep import Lockstep
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated_batch import Batch, Step
from dynasor.engines.simulated_job import Counters, Job, Queue, Report, State
from dynasor.engines.step_run import StepRun, last_that_holds
from dynasor.errors import EngineError
from dynasor.scheduling.gang import Hints

RECONSIDER = 1.0
"""Seconds after which a queue whose first request does not fit is asked again: its order may change."""
_PACE_MEMORY = 0.99  # a step, as in the engine


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
        self._time = settings.step_time
        self._queue = queue(lambda: self._now)
        self._blocks = KVBlocks(settings.kv_blocks, settings.block_size)
        self._lockstep = Lockstep(settings.block_size)
        self._batch = Batch(settings, self._queue, self._blocks, self._lockstep, self.counters)
        self._run: StepRun | None = None

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
        return len(self._batch)

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
            self._batch.cut(job, self.generated(job, now))
            if self._run is None:
                self._batch.drop_cut()
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
        return self._batch.end_step(self._now)

    def schedule(self) -> None:
        """Begin what runs next, at the time of the last `advance`; sets `due`."""
        self._queue.reconsider()
        step = self._batch.next_step()
        if step is not None:
            self._begin_step(step)
        elif self._lockstep.count:
            self._begin_run()
        else:
            self.due = inf

    # The steps under way -------------------------------------------------------------------------

    def _steps_from_now(self, steps: int, *, single: bool) -> StepRun:
        count, context = self._lockstep.count, self._lockstep.context
        return StepRun(self._time, self._now, steps, single, count, context)

    def _queue_changed(self) -> None:
        if self._run is None:
            self.due = self._now
        elif self._batch.has_place():
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

    def _begin_step(self, step: Step) -> None:
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
        if self._batch.has_place():
            self._interrupt(self._now + RECONSIDER)

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
        counters.running_sum += run.steps * len(self._batch)
        old = _PACE_MEMORY**run.steps if counters.steps > run.steps else 0.0
        self._queue.pace = old * self._queue.pace + (1 - old) * seconds / run.steps
