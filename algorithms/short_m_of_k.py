"""Short-m-of-k: start k samples, answer from the first m that finish, cut the others.

Hassid et al., "Don't Overthink it. Preferring Shorter Thinking Chains for Improved LLM Reasoning",
2025. Shorter chains are right more often, and the longest are never paid for in full.
"""

from __future__ import annotations

from algorithms.program import Event, Generation, Request
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task


class ShortMOfK(SelfConsistency):
    """Majority vote of the first `first` of `samples` samples that finish.

    The samples are meant to run all at once (a wave of `samples`), and their ends to be folded in as
    they come: which of them is shorter is what the answer depends on. A tie is won by the answer
    that came first, which is that of the shorter samples.

    Args:
        first: m, the finished samples that decide.
        samples: k, the samples that are started.
        task: see `SelfConsistency`.
    """

    def __init__(
        self,
        task: Task,
        *,
        first: int,
        samples: int,
    ) -> None:
        if not 1 <= first <= samples:
            raise ValueError(f"first must be between 1 and samples = {samples}, not {first}")
        super().__init__(task, samples=samples)
        self._first = first
        self._failed = 0
        self._cut: list[str] = []
        self.votes().max_samples = first

    def propose(self, n: int) -> list[Request]:
        """The next samples, none once enough have finished."""
        return [] if self._enough else super().propose(n)

    @property
    def _enough(self) -> bool:
        return self.votes().n >= self._first

    def receive(self, event: Event) -> None:
        """Count a sample that finished among the first; the last of these ends the others."""
        if not isinstance(event, Generation):
            return
        if self._enough:  # it was cut, or has ended in the same moment: too late either way
            self._running.remove(event.request)
            self.votes().in_flight = len(self._running)
            return
        super().receive(event)
        if event.finish_reason in ("aborted", "error"):
            self._failed += 1
            self.votes().max_samples = min(self._first, self._samples - self._failed)
        if self._enough:
            self._cut = sorted(self._running)

    def cancelled(self) -> list[str]:
        """The samples that still run when enough have finished."""
        cut, self._cut = self._cut, []
        return cut

    def remaining(self) -> int:
        """Samples not yet started; none once enough have finished."""
        return 0 if self._enough else super().remaining()
