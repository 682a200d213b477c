"""Whether two answers are the same, and groups of answers that are.

The cheap rules of `certaindex.comparison` run in-process. What they leave open goes to math-verify,
in worker processes of its own, because its input is model output: a comparison may run for ever,
eat all memory or crash, and then costs one deadline and one restart, and counts as "not the same".
Queries that share the workers can each be held to an allowance (`certaindex.equivalence_share`).

The relation is symmetric by construction (math-verify is asked in both orders, and either yes
counts). It is not quite transitive: `50%` is the same as `50` and as `0.5`; `5` as `5 cm` and as
`5 km`. A group holds what is the same as its first answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from time import monotonic
from types import TracebackType
from typing import Self

from certaindex.canonical import MAX_ANSWER_CHARS, canonical
from certaindex.comparison import decide, undecided
from certaindex.equivalence_process import WorkerLate, WorkerLost
from certaindex.equivalence_share import Allowance
from certaindex.equivalence_workers import Seat, Workers
from certaindex.groups import AnswerGroups, Equivalence, ExactEquivalence, exact_match

__all__ = [
    "AnswerEquivalence",
    "AnswerGroups",
    "Equivalence",
    "ExactEquivalence",
    "Stats",
    "exact_match",
]

DEADLINE_SECONDS = 2.0
"""For one comparison in the worker. Nearly all take less than 0.2 s; what needs 2 s on an idle
core is an attack or simplification that will not end."""
CACHED_VERDICTS = 1 << 14
"""Verdicts kept; at two answers of the usual 20 characters some megabytes."""
MAX_FAILURES = 2
"""Timeouts or crashes after which one call gives up on the rest: an upper bound of its time."""
_PROBE = "t+1"
"""A harmless answer, to tell which of two answers the worker cannot cope with."""


@dataclass(slots=True)
class Stats:
    """Comparisons of two answers since the start, by how they were decided.

    Attributes:
        fast: in-process.
        cached: by an earlier verdict of the worker, or as an answer that broke it before.
        slow: by the worker, including those that failed.
        timeouts: slow ones that took longer than the deadline.
        crashes: slow ones at which the worker died.
        restarts: workers started after the first.
    """

    fast: int = 0
    cached: int = 0
    slow: int = 0
    timeouts: int = 0
    crashes: int = 0
    restarts: int = 0


class AnswerEquivalence:
    """Decides whether answers are the same; never raises because of an answer.

    A context manager. Thread-safe: calls that need a worker take turns. A worker starts with
    the first comparison that needs it (about a second) and is used again for the next ones.
    One call costs at most a few deadlines, even if the worker has to be killed.

    Args:
        deadline: seconds for one comparison in a worker.
        workers: at most; the second starts when the first is busy.
    """

    def __init__(self, deadline: float = DEADLINE_SECONDS, *, workers: int = 1) -> None:
        if not deadline > 0:
            raise ValueError(f"deadline must be positive, not {deadline}")
        self.deadline = deadline
        self._state = threading.Lock()  # cache, stats, blame; held for microseconds
        self._workers = Workers(workers)
        self._verdicts: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._refused: OrderedDict[str, bool] = OrderedDict()  # answer -> whether it broke a probe
        self._stats = Stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; a later comparison that needs one starts another."""
        self._workers.close()

    @property
    def stats(self) -> Stats:
        """A copy of the counts so far."""
        with self._state:
            return replace(self._stats, restarts=max(0, self._workers.started - 1))

    @property
    def worker_pid(self) -> int | None:
        """Process id of a worker, None while there is none."""
        return self._workers.pid

    def same(self, a: str, b: str) -> bool:
        """Whether both are the same answer. Symmetric, and true of an answer and itself."""
        return self.same_as_any(a, [b]) is not None

    def same_as_any(
        self, new: str, representatives: Sequence[str], allowance: Allowance | None = None
    ) -> int | None:
        """Index of an element of `representatives` that is the same answer as `new`, or None.

        One that is known in-process wins over one that takes a worker; then the first wins. All
        that take a worker are asked about in one round trip.

        Args:
            new: an answer.
            representatives: other answers.
            allowance: of the query, and is charged; what it does not suffice for is not the same.
        """
        key, others = _key(new), [_key(other) for other in representatives]
        unknown = []
        for index, other in enumerate(others):
            verdict = self._known(key, other)
            if verdict:
                return index
            if verdict is None:
                unknown.append(index)
        if not unknown:
            return None
        left = allowance or Allowance(inf, inf)
        begin = monotonic()
        seat = self._workers.take(left.wait) if left.work > 0 else None
        left.wait -= monotonic() - begin
        if seat is None:
            return None
        try:
            self._workers.running(seat)  # no query pays for a first start
            begin = monotonic()
            return self._ask(seat, key, others, unknown, begin + left.work)
        finally:
            if allowance is not None and seat.process is None:
                self._workers.running(seat)  # no other query waits for this restart
            left.work -= monotonic() - begin
            self._workers.give_back(seat)

    def _known(self, a: str, b: str) -> bool | None:
        """The verdict if it needs no worker."""
        if max(len(a), len(b)) > MAX_ANSWER_CHARS:
            verdict: bool | None = a == b
        else:
            verdict = decide(a, b, undecided)
        with self._state:
            if verdict is not None:
                self._stats.fast += 1
                return verdict
            pair = (min(a, b), max(a, b))
            if pair in self._verdicts:
                self._verdicts.move_to_end(pair)
                verdict = self._verdicts[pair]
            elif self._is_refused(a) or self._is_refused(b):
                verdict = False
            self._stats.cached += verdict is not None
            return verdict

    def _is_refused(self, answer: str) -> bool:
        return self._refused.get(answer, False)

    def _remember(self, a: str, b: str, verdict: bool) -> None:
        with self._state:
            self._stats.slow += 1
            self._verdicts[min(a, b), max(a, b)] = verdict
            if len(self._verdicts) > CACHED_VERDICTS:
                self._verdicts.popitem(last=False)

    def _ask(
        self, seat: Seat, key: str, others: list[str], left: list[int], end: float
    ) -> int | None:
        failures = retries = 0
        while left and failures < MAX_FAILURES and monotonic() < end and not self._is_refused(key):
            process = self._workers.running(seat)
            if process is None:
                return None
            asked = iter(left)
            current = left[0]
            try:
                verdicts = process.ask(key, [others[index] for index in left], self.deadline)
                for current in asked:
                    verdict = next(verdicts)
                    self._remember(key, others[current], verdict)
                    if verdict:
                        return current
                    if monotonic() > end and current != left[-1]:
                        seat.drop()  # its replies are still in the pipe
                        return None
                return None
            except (WorkerLate, WorkerLost) as error:
                seat.drop()
                left = left[left.index(current) :]
                if isinstance(error, WorkerLost) and not retries:
                    retries = 1  # perhaps somebody killed it: the answers get a second chance
                    continue
                failures += 1
                self._fail(seat, key, others[current], error)
                left = [index for index in left[1:] if not self._is_refused(others[index])]
            except BaseException:
                seat.drop()  # its replies are still in the pipe
                raise
        return None

    def _fail(self, seat: Seat, a: str, b: str, error: Exception) -> None:
        """Book a failed comparison, and find out which of the answers is to blame for it."""
        self._remember(a, b, False)
        with self._state:
            self._stats.timeouts += isinstance(error, WorkerLate)
            self._stats.crashes += isinstance(error, WorkerLost)
        for answer in (a, b):
            if answer in self._refused:
                continue
            process = self._workers.running(seat)
            if process is None:
                return
            try:
                for _ in process.ask(answer, [_PROBE], self.deadline):
                    pass
                refused = False
            except (WorkerLate, WorkerLost):
                seat.drop()
                refused = True
            with self._state:
                self._refused[answer] = refused
                if len(self._refused) > CACHED_VERDICTS:
                    self._refused.popitem(last=False)
            if refused:
                return


@lru_cache(maxsize=4096)
def _short_key(answer: str) -> str:
    return canonical(answer)


def _key(answer: str) -> str:
    # Long ones stay out of the cache: 4,096 of them could be gigabytes.
    return _short_key(answer) if len(answer) <= MAX_ANSWER_CHARS else canonical(answer)
