"""The worker processes of an equivalence: started when needed, taken in turns, replaced when killed."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from math import inf
from queue import Empty, LifoQueue

from certaindex.equivalence_process import EquivalenceProcess, WorkerLate, WorkerLost

MAX_FAILED_STARTS = 3
"""Failed starts in a row after which no more are tried (math-verify is broken, say)."""

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Seat:
    """A place for a worker; whoever has taken it may ask, kill or replace the worker."""

    process: EquivalenceProcess | None = None

    def drop(self) -> None:
        """Kill the worker, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()


class Workers:
    """At most so many workers; the next one starts when the others are busy.

    Args:
        count: of workers.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"workers must be 1 or more, not {count}")
        self.started = 0
        self._failed_starts = 0
        self._counting = threading.Lock()
        self._seats = [Seat() for _ in range(count)]
        self._free: LifoQueue[Seat] = LifoQueue()  # the last one used has its worker already
        for seat in self._seats:
            self._free.put(seat)

    @property
    def pid(self) -> int | None:
        """Process id of a worker, None while there is none."""
        running = [seat.process for seat in self._seats]
        return next((process.pid for process in running if process), None)

    def take(self, wait: float = inf) -> Seat | None:
        """A seat of one's own, or None if none gets free within so many seconds."""
        try:
            return self._free.get(timeout=None if wait == inf else max(0.0, wait))
        except Empty:
            return None

    def give_back(self, seat: Seat) -> None:
        """For the next one."""
        self._free.put(seat)

    def running(self, seat: Seat) -> EquivalenceProcess | None:
        """The worker of a seat, started if need be; None if it cannot be started."""
        if seat.process is not None and seat.process.usable:
            return seat.process
        seat.drop()
        if self._failed_starts >= MAX_FAILED_STARTS:
            return None
        try:
            seat.process = EquivalenceProcess()
        except (WorkerLate, WorkerLost) as error:
            with self._counting:
                self._failed_starts += 1
            _LOG.warning("answers are compared as text only, no worker: %s", error or "too slow")
            return None
        with self._counting:
            self.started += 1
            self._failed_starts = 0
        return seat.process

    def close(self) -> None:
        """End all workers, once nobody asks them any more; they may be started again."""
        taken = [self._free.get() for _ in self._seats]
        for seat in taken:
            seat.drop()
            self._free.put(seat)
