"""Whether two answers are the same, and groups of answers that are.

The cheap rules of `certaindex.comparison` run in-process. What they leave open goes to math-verify,
in a worker process of its own, because its input is model output: a comparison may run for ever,
eat all memory or crash, and then costs one deadline and one restart, and counts as "not the same".

The relation is symmetric by construction (math-verify is asked in both orders, and either yes
counts). It is not quite transitive: `50%` is the same as `50` and as `0.5`; `5` as `5 cm` and as
`5 km`. A group holds what is the same as its first answer.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Self

from certaindex.canonical import MAX_ANSWER_CHARS, canonical
from certaindex.comparison import decide, undecided
from certaindex.equivalence_process import EquivalenceProcess, WorkerLate, WorkerLost
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
MAX_FAILED_STARTS = 3
"""Failed starts in a row after which no more are tried (math-verify is broken, say)."""
_PROBE = "t+1"
"""A harmless answer, to tell which of two answers the worker cannot cope with."""

_LOG = logging.getLogger(__name__)


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

    A context manager. Thread-safe: calls that need the worker take turns. The worker starts with
    the first comparison that needs it (about a second) and is used again for the next ones.
    One call costs at most a few deadlines, even if the worker has to be killed.

    Args:
        deadline: seconds for one comparison in the worker.
    """

    def __init__(self, deadline: float = DEADLINE_SECONDS) -> None:
        if not deadline > 0:
            raise ValueError(f"deadline must be positive, not {deadline}")
        self._deadline = deadline
        self._state = threading.Lock()  # cache, stats, blame; held for microseconds
        self._turn = threading.Lock()  # the worker; held for a whole call
        self._verdicts: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._refused: OrderedDict[str, bool] = OrderedDict()  # answer -> whether it broke a probe
        self._stats = Stats()
        self._process: EquivalenceProcess | None = None
        self._started = 0
        self._failed_starts = 0

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
        """End the worker; a later comparison that needs one starts another."""
        with self._turn:
            self._drop()

    @property
    def stats(self) -> Stats:
        """A copy of the counts so far."""
        with self._state:
            return replace(self._stats)

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, None while there is none."""
        process = self._process
        return process.pid if process else None

    def same(self, a: str, b: str) -> bool:
        """Whether both are the same answer. Symmetric, and true of an answer and itself."""
        return self.same_as_any(a, [b]) is not None

    def same_as_any(self, new: str, representatives: Sequence[str]) -> int | None:
        """Index of an element of `representatives` that is the same answer as `new`, or None.

        One that is known in-process wins over one that takes the worker; then the first wins. All
        that take the worker are asked about in one round trip.
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
        with self._turn:
            return self._ask(key, others, unknown)

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

    def _ask(self, key: str, others: list[str], left: list[int]) -> int | None:
        failures = retries = 0
        while left and failures < MAX_FAILURES and not self._is_refused(key):
            process = self._running()
            if process is None:
                return None
            asked = iter(left)
            current = left[0]
            try:
                verdicts = process.ask(key, [others[index] for index in left], self._deadline)
                for current in asked:
                    verdict = next(verdicts)
                    self._remember(key, others[current], verdict)
                    if verdict:
                        return current
                return None
            except (WorkerLate, WorkerLost) as error:
                self._drop()
                left = left[left.index(current) :]
                if isinstance(error, WorkerLost) and not retries:
                    retries = 1  # perhaps somebody killed it: the answers get a second chance
                    continue
                failures += 1
                self._fail(key, others[current], error)
                left = [index for index in left[1:] if not self._is_refused(others[index])]
            except BaseException:
                self._drop()  # its replies are still in the pipe
                raise
        return None

    def _fail(self, a: str, b: str, error: Exception) -> None:
        """Book a failed comparison, and find out which of the answers is to blame for it."""
        self._remember(a, b, False)
        with self._state:
            self._stats.timeouts += isinstance(error, WorkerLate)
            self._stats.crashes += isinstance(error, WorkerLost)
        for answer in (a, b):
            if answer in self._refused:
                continue
            process = self._running()
            if process is None:
                return
            try:
                for _ in process.ask(answer, [_PROBE], self._deadline):
                    pass
                refused = False
            except (WorkerLate, WorkerLost):
                self._drop()
                refused = True
            with self._state:
                self._refused[answer] = refused
                if len(self._refused) > CACHED_VERDICTS:
                    self._refused.popitem(last=False)
            if refused:
                return

    def _running(self) -> EquivalenceProcess | None:
        """The worker, started if need be; None if it cannot be started."""
        if self._process is not None and self._process.usable:
            return self._process
        self._drop()
        if self._failed_starts >= MAX_FAILED_STARTS:
            return None
        try:
            self._process = EquivalenceProcess()
        except (WorkerLate, WorkerLost) as error:
            self._failed_starts += 1
            _LOG.warning("answers are compared as text only, no worker: %s", error or "too slow")
            return None
        with self._state:
            self._stats.restarts += self._started > 0
        self._started += 1
        self._failed_starts = 0
        return self._process

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()


@lru_cache(maxsize=4096)
def _short_key(answer: str) -> str:
    return canonical(answer)


def _key(answer: str) -> str:
    # Long ones stay out of the cache: 4,096 of them could be gigabytes.
    return _short_key(answer) if len(answer) <= MAX_ANSWER_CHARS else canonical(answer)
