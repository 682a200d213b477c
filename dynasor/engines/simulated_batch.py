"""The requests that a simulated replica serves at once: who is in, with which tokens and KV blocks.

The rules are those of `vllm/v1/core/sched/scheduler.py`: running requests go first, in order; a prompt
is computed in parts where the step's budget of tokens is used up; a request that finds no free block
preempts the last of the running ones, which computes everything anew later; the waiting are admitted
in the order of the queue until one does not fit, and none in a step that preempted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from dynasor.engines.kv_blocks import KVBlocks
from dynasor.engines.lockstep import Lockstep
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated_job import Counters, Job, Queue, Report, State
from dynasor.scheduling.memory import expected_left, peak_tokens


@dataclass(slots=True)
class Step:
    """What the requests that are not in lockstep add to the next step.

    Attributes:
        left: tokens that the step may still compute.
        prefill, context, decoding: see `StepTime.step`.
    """

    left: int
    prefill: int = 0
    context: int = 0
    decoding: int = 0


class Batch:
    """Takes requests from a queue and gives them tokens and blocks, from step to step.

    Args:
        settings: of the replica.
        queue: of waiting jobs.
        blocks: the KV cache.
        lockstep: counts the requests that only decode.
        counters: of preemptions.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        queue: Queue,
        blocks: KVBlocks,
        lockstep: Lockstep,
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._blocks = blocks
        self._lockstep = lockstep
        self._counters = counters
        self._running: dict[Job, None] = {}  # in order of admission
        self._apart: dict[Job, None] = {}  # of these, who is not in lockstep
        self._sampling: list[Job] = []  # get out of the step under way the token they wait for
        self._cut: list[Job] = []

    def __len__(self) -> int:
        return len(self._running)

    def has_place(self) -> bool:
        """Whether somebody waits and there are not too many in the batch."""
        return len(self._queue) > 0 and len(self._running) < self._settings.max_running

    def next_step(self) -> Step | None:
        """Begin a step; None where all decode and none can come in, so that steps are alike."""
        step = Step(self._settings.max_batched_tokens)
        needed = self._lockstep.blocks_for(1)
        if self._apart or self._lockstep.count > step.left:
            if not self._serve_in_order(step):
                self._admit(step)
        elif needed > self._blocks.free:
            self._make_room()
        elif self._head_fits(needed):
            self._blocks.take(needed)
            step.left -= self._lockstep.count
            self._admit(step)
        else:
            return None
        return step

    def end_step(self, now: float) -> list[Report]:
        """The step is over, or the steps in which all decode: who has ended, who has news."""
        self.drop_cut()
        reports: list[Report] = []
        ended: dict[Job, None] = {}
        for job in self._sampling:
            if job.state is State.APART:
                self._sample(job, now, ended, reports)
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

    def cut(self, job: Job, generated: int) -> None:
        """A running job with so many tokens leaves with the next `drop_cut`, or the end of the step."""
        job.generated = generated
        job.state = State.CUT
        self._cut.append(job)

    def drop_cut(self) -> None:
        """Free the places of those that were cut."""
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

    # Who is served in a step --------------------------------------------------------------------

    def _head_fits(self, reserved: int) -> bool:
        """Whether one of the waiting can be admitted to a step in which all others decode."""
        if self._lockstep.count >= self._settings.max_batched_tokens or not self.has_place():
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

    def _serve_in_order(self, step: Step) -> bool:
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
        self._counters.preemptions += 1
        self._counters.recomputed_tokens += job.computed
        self._blocks.release(job.held, job)
        job.held, job.computed, job.state = None, 0, State.WAITING
        del self._running[job]
        self._apart.pop(job, None)
        self._queue.give_back(job)

    def _admit(self, step: Step) -> None:
        """Admit from the queue until one does not fit."""
        while step.left and self.has_place() and (job := self._queue.peek()) is not None:
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

    def _compute(self, job: Job, tokens: int, step: Step) -> None:
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

    # Who leaves -----------------------------------------------------------------------------------

    def _sample(self, job: Job, now: float, ended: dict[Job, None], reports: list[Report]) -> None:
        """A request that was apart got its token: from now on it is in step with the others."""
        job.generated += 1
        if job.first_token is None:
            job.first_token = now
        del self._apart[job]
        if job.generated == job.output:
            ended[job] = None
            return
        if job.report_every and job.generated % job.report_every == 0:
            reports.append(Report(job, job.generated, False))
        self._lockstep.join(job)

    def _leave_lockstep(self, job: Job) -> None:
        assert job.held is not None, "a running request has blocks"
        self._lockstep.leave(job)
        job.held.tokens = job.computed

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
