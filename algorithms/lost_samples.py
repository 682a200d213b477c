"""The samples of one query that have become improbable: found, named to be cut, and counted."""

from __future__ import annotations

from collections.abc import Iterable

from algorithms.program import Generation, Progress, Request
from certaindex.early_cut import CutSamples, EarlyCut
from certaindex.votes import Votes


class LostSamples:
    """Looks at each sample as it runs.

    Decided is by what was sampled, not by when the news of it came: a sample that ended before it could
    be cut is lost all the same.

    Args:
        cut: which samples are lost; None for none.
    """

    def __init__(self, cut: EarlyCut | None) -> None:
        self._cut = cut
        self._running: dict[str, int] = {}  # request -> index; without the lost
        self._lost: dict[str, int] = {}  # the same of those that are lost and have not ended yet
        self._to_cut: list[str] = []
        self._counted = CutSamples()

    def begin(self, requests: Iterable[Request]) -> None:
        """Samples start."""
        self._running |= {request.id: request.index for request in requests}

    def look(self, progress: Progress) -> None:
        """See whether a running sample is lost by now."""
        request = progress.request
        if self._cut is None or request in self._lost:
            return
        if self._may_cut(request) and self._cut.lost_at(progress.logprobs or ()) is not None:
            self._lost[request] = self._running.pop(request)
            self._to_cut.append(request)

    def to_cut(self) -> list[str]:
        """Requests to cut, each named once."""
        named, self._to_cut = self._to_cut, []
        return named

    def takes(self, sample: Generation, votes: Votes) -> bool:
        """Whether a sample that has ended was lost; then it is counted here, without a vote."""
        request = sample.request
        if sample.finish_reason == "error" or not self._is_lost(sample):
            return False
        index = self._lost.pop(request) if request in self._lost else self._running.pop(request)
        self._counted.was_cut(index, sample.tokens, votes, self._running.values())
        return True

    def _is_lost(self, sample: Generation) -> bool:
        if sample.request in self._lost:
            return True
        if self._cut is None or sample.finish_reason == "aborted":
            return False
        logprobs = (sample.logprobs or ())[:-1]
        return self._may_cut(sample.request) and self._cut.lost_at(logprobs) is not None

    def _may_cut(self, request: str) -> bool:
        return self._running[request] != self._counted.spared

    def counted(self, sample: Generation, votes: Votes, following: int) -> None:
        """A sample that was not lost has ended, and is counted.

        Args:
            sample: the end of it.
            votes: of the query, with its vote.
            following: index of the sample that would be begun next.
        """
        request = sample.request
        index = self._lost.pop(request) if request in self._lost else self._running.pop(request)
        self._counted.has_ended(index, votes, self._running.values(), following)
