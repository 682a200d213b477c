"""Requests that decode in step: each step gives one token to each, so they are counted together."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from dynasor.engines.simulated_job import Job, State


class Lockstep:
    """Those of a replica's requests that decode.

    Steps are numbered. A member's tokens in the cache are the number of the step plus its `offset`,
    which stays the same; it needs a new KV block in each step in which that sum is a multiple of the
    block size. So members that need one in the same steps are counted, `block_size` numbers in all.

    Args:
        block_size: tokens a KV block.
    """

    def __init__(self, block_size: int) -> None:
        self.steps = 0
        """Steps since the beginning."""
        self.count = 0
        """Members."""
        self.context = 0
        """Tokens in the cache of all members."""
        self._size = block_size
        self._needy = [0] * block_size  # members that need a block in a step of this residue
        self._stops: list[tuple[int, int, Job]] = []  # heap by step; of those that left: void
        self._pushed = 0

    def join(self, job: Job) -> None:
        """A request that has all but its next token decodes from now on."""
        job.state = State.DECODING
        job.offset = job.computed - self.steps
        self.count += 1
        self.context += job.computed
        self._needy[-job.offset % self._size] += 1
        self._set_stop(job, job.generated)

    def leave(self, job: Job) -> None:
        """A member is on its own; its counts are brought up to date."""
        self._needy[-job.offset % self._size] -= 1
        job.generated = self.generated(job)
        job.computed = self.tokens(job)
        self.count -= 1
        self.context -= job.computed

    def tokens(self, job: Job) -> int:
        """A member's tokens in the cache."""
        return job.offset + self.steps

    def generated(self, job: Job) -> int:
        """A member's output tokens: the last one is not in the cache yet."""
        return job.offset + self.steps - job.prompt + 1

    def blocks_for(self, steps: int) -> int:
        """KV blocks that the members need for so many steps."""
        rounds, rest = divmod(steps, self._size)
        first = self.steps % self._size
        blocks = sum(self._needy[first : first + rest])
        if first + rest > self._size:
            blocks += sum(self._needy[: first + rest - self._size])
        return rounds * self.count + blocks

    def until_stop(self) -> int:
        """Steps until the first member stops to end or to report; there must be one."""
        while not self._is_valid(*self._stops[0]):
            heappop(self._stops)
        return self._stops[0][0] - self.steps

    def go(self, steps: int) -> None:
        """So many steps are done."""
        self.steps += steps
        self.context += self.count * steps

    def stopped(self) -> Iterator[tuple[Job, int]]:
        """Members that have come to their stop, and their output tokens; they still are members."""
        while self._stops and self._stops[0][0] <= self.steps:
            stop, order, job = heappop(self._stops)
            if self._is_valid(stop, order, job):
                generated = self.generated(job)
                if generated < job.output:
                    self._set_stop(job, generated)
                yield job, generated

    def _set_stop(self, job: Job, generated: int) -> None:
        target = job.output
        if job.report_every:
            target = min(target, (generated // job.report_every + 1) * job.report_every)
        job.stop = self.steps + target - generated
        self._pushed += 1
        heappush(self._stops, (job.stop, self._pushed, job))

    def _is_valid(self, stop: int, order: int, job: Job) -> bool:
        return job.state is State.DECODING and job.stop == stop
