"""Simulated replicas behind a router: each job goes to one of them, now or when a place is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from algorithms.program import Request
from dynasor.bench.virtual_router import Router
from dynasor.engines.simulated import Replica
from dynasor.engines.simulated_job import Job, Queue, Report
from dynasor.scheduling.gang import Hints


class VirtualFleet:
    """See the module.

    Args:
        replicas: what serves.
        places: requests that each runs at once.
        router: chooses.
        unbound: the queue of jobs for which the router does not choose.
        clock: virtual time.
        at: calls an action at a time.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        places: int,
        router: Router,
        unbound: Queue,
        clock: Callable[[], float],
        at: Callable[..., None],
    ) -> None:
        self.router = router
        self._replicas = replicas
        self._places = places
        self._unbound = unbound
        self._clock = clock
        self._at = at
        self._step: Callable[[int], Any] | None = None
        self._wake = [inf] * len(replicas)
        self._replica_of: dict[Job, int] = {}
        self._gangs: dict[str, dict[Job, None]] = {}  # jobs that are on a replica
        self._latest: Callable[[str], Hints | None] = lambda gang: None

    def serve(self, step: Callable[[int], Any], latest: Callable[[str], Hints | None]) -> None:
        """Begin: `step(index)` is called when a replica is due; `latest(gang)` gives hints."""
        self._step, self._latest = step, latest

    def advance(self, index: int) -> list[Report] | None:
        """What a replica's step, or run of steps, has brought; None if it was looked at before."""
        if self._clock() != self._wake[index]:
            return None
        return self._replicas[index].advance()

    def schedule(self, index: int) -> None:
        """Go on after `advance`."""
        self._bind()
        self._replicas[index].schedule()
        self._wake[index] = inf
        self._rouse(index)

    def submit(self, job: Job, request: Request) -> None:
        """A job comes."""
        index = self.router.place(request, job.prefix, job.prompt)
        if index is not None:
            self._submit(job, index)
        else:
            self._unbound.add(job, job.gang, job.name, self._latest(job.gang))
            self._bind()

    def generated(self, job: Job) -> int:
        """Output tokens so far."""
        index = self._replica_of.get(job)
        return 0 if index is None else self._replicas[index].generated(job, self._clock())

    def abort(self, job: Job) -> int:
        """Cut a job; its output tokens so far."""
        index = self._replica_of.get(job)
        if index is None:
            return 0
        tokens = self._replicas[index].abort(job, self._clock())
        self._rouse(index)
        return tokens

    def end(self, job: Job) -> None:
        """A job has ended or was cut."""
        self.router.end(job.name, job.generated if job.generated == job.output else None)
        self._unbound.end(job, job.generated)
        if self._replica_of.pop(job, None) is not None:
            gang = self._gangs[job.gang]
            del gang[job]
            if not gang:
                del self._gangs[job.gang]

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang, to wherever it has jobs."""
        for index in sorted(self._where(gang)):
            self._replicas[index].hint(gang, hints, self._clock())
            self._rouse(index)
        self._unbound.hint(gang, hints)

    def _where(self, gang: str) -> set[int]:
        return {self._replica_of[job] for job in self._jobs(gang)}

    def _jobs(self, gang: str) -> Iterable[Job]:
        return self._gangs.get(gang, ())

    def _submit(self, job: Job, index: int) -> None:
        self._replica_of[job] = index
        self._gangs.setdefault(job.gang, {})[job] = None
        self._replicas[index].submit(job, self._clock(), self._latest(job.gang))
        self._rouse(index)

    def _rouse(self, index: int) -> None:
        """See that a replica is looked at when it is due."""
        due = self._replicas[index].due
        if due < self._wake[index]:
            self._wake[index] = due
            self._at(due, self._step, index)

    def _bind(self) -> None:
        """Send those who wait unbound where places are free, best where siblings are."""
        if not len(self._unbound):
            return
        self._unbound.reconsider()
        while (job := self._unbound.peek()) is not None:
            free = [self._places - each.running - each.waiting for each in self._replicas]
            most = max(range(len(free)), key=free.__getitem__)
            if free[most] < 1:
                return
            self._unbound.take()
            siblings = self._where(job.gang)
            near = max(siblings, key=lambda index: (free[index], -index), default=most)
            self._submit(job, near if free[near] > 0 else most)
