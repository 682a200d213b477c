"""Self-consistency: many samples of one prompt, and the answer that most of them give.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from algorithms.ballot import Ballot
from algorithms.lost_samples import LostSamples
from algorithms.program import (
    Answer,
    Certainty,
    Event,
    Generation,
    Progress,
    Request,
)
from algorithms.task import Task
from certaindex.agreement import certaindex
from certaindex.early_cut import EarlyCut
from certaindex.votes import Votes

Weigh = Callable[[Generation], float]
"""Weight of a sample's vote, 0 or more; None in its place counts every vote as 1."""


class SelfConsistency:
    """Majority vote over at most `samples` samples of one prompt.

    A tie is won by the answer that reached the winning weight first. A sample without an answer
    counts as a sample and votes for nobody, and so does one that was cut because it had become
    improbable. A sample that somebody else cut or that the engine failed is no evidence at all: it
    only makes the budget smaller by one.

    Args:
        task: what is asked, the same for each sample.
        samples: the full budget.
        weigh: vote weight of a sample (see `certaindex.confidence`), or None.
        cut: which running samples are lost and to be cut, or None for none; needs
            `task.sampling.logprobs`.
        report_every: tokens between progress events of a sample, or None; `cut` has its own.
    """

    def __init__(
        self,
        task: Task,
        *,
        samples: int,
        weigh: Weigh | None = None,
        cut: EarlyCut | None = None,
        report_every: int | None = None,
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, not {samples}")
        self._task = task
        self._weigh = weigh
        self._lost = LostSamples(cut)
        self._report_every = report_every if cut is None else cut.every
        self._samples = samples
        self._ballot = Ballot(samples, task.groups)
        self._proposed = 0
        self._running: set[str] = set()

    @property
    def id(self) -> str:
        """Name of the query."""
        return self._task.id

    def propose(self, n: int) -> list[Request]:
        """The next `n` samples, or what is left of the budget."""
        first, last = self._proposed, min(self._proposed + n, self._samples)
        self._proposed = last
        requests = [self._request(index) for index in range(first, last)]
        self._running.update(request.id for request in requests)
        self._lost.begin(requests)
        self.votes().in_flight = len(self._running)
        return requests

    def _request(self, index: int) -> Request:
        sampling = self._task.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + index)
        return Request(
            id=f"{self._task.id}#{index}",
            program=self._task.id,
            prompt=self._task.prompt,
            sampling=sampling,
            index=index,
            report_every=self._report_every,
        )

    def receive(self, event: Event) -> None:
        """Count a finished sample, or see whether one that runs is lost."""
        if isinstance(event, Progress):
            self._lost.look(event)
            return
        self._running.remove(event.request)
        self.votes().in_flight = len(self._running)
        if self._lost.takes(event, self.votes()):
            return
        if event.finish_reason in ("aborted", "error"):
            self.votes().max_samples -= 1
        else:
            self._vote(event)
        self._lost.counted(event, self.votes(), self._proposed)

    def _vote(self, event: Generation) -> None:
        weight = 1.0 if self._weigh is None else self._weigh(event)
        self._ballot.count(self._task.extract(event.text), event.text, event.tokens, weight)

    def follow_ups(self) -> list[Request]:
        """Nothing: a sample is a whole answer."""
        return []

    def conclude(self) -> list[Request]:
        """Nothing: the votes are the answer."""
        return []

    def cancelled(self) -> list[str]:
        """Samples that have become improbable; all else that is cut is the allocator's decision."""
        return self._lost.to_cut()

    def votes(self) -> Votes:
        """The answers of the finished samples."""
        return self._ballot.votes

    def certainty(self) -> Certainty:
        """Agreement certaindex of the votes; 0 while there are fewer than two answers."""
        votes = self.votes()
        return Certainty(certaindex(votes.counts) or 0.0, "agreement", votes.answered)

    def answer(self) -> Answer:
        """The leading answer and all others, heaviest first."""
        return self._ballot.answer()

    def remaining(self) -> int:
        """Samples of the full budget that were not yet proposed."""
        return self._samples - self._proposed
