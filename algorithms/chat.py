"""A plain request: the model is asked, and what it says is the answer. Nothing is voted on."""

from __future__ import annotations

from dataclasses import replace

from algorithms.program import (
    Answer,
    Candidate,
    Certainty,
    Event,
    Generation,
    Progress,
    Prompt,
    Request,
    Sampling,
)
from certaindex.votes import Votes


class Chat:
    """One or several answers to one prompt, each of its own; a gang of that many requests.

    Args:
        id: name of the query.
        prompt: what the model is asked.
        sampling: how; answer `i` gets the seed `sampling.seed + i`.
        choices: number of answers.
        prefix: text with which each of them begins; the model goes on from there.
        report_every: tokens between progress events, or None.
    """

    def __init__(
        self,
        id: str,
        prompt: Prompt,
        *,
        sampling: Sampling,
        choices: int = 1,
        prefix: str = "",
        report_every: int | None = None,
    ) -> None:
        if choices < 1:
            raise ValueError(f"choices must be 1 or more, not {choices}")
        self._id = id
        self._prompt = prompt
        self._prefix = prefix
        self._sampling = sampling
        self._report_every = report_every
        self._proposed = 0
        self._index: dict[str, int] = {}
        self._votes = Votes(max_samples=choices)
        self.choices: list[Generation | Progress | None] = [None] * choices
        """The latest of each answer, None before its first token."""

    @property
    def id(self) -> str:
        """Name of the query."""
        return self._id

    def propose(self, n: int) -> list[Request]:
        """The next `n` answers, or those that are left."""
        first, last = self._proposed, min(self._proposed + n, len(self.choices))
        self._proposed = last
        requests = [self._request(index) for index in range(first, last)]
        self._votes.in_flight += len(requests)
        return requests

    def _request(self, index: int) -> Request:
        sampling = self._sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + index)
        name = f"{self._id}#{index}"
        self._index[name] = index
        return Request(
            id=name,
            program=self._id,
            prompt=self._prompt,
            sampling=sampling,
            index=index,
            prefix=self._prefix,
            report_every=self._report_every,
        )

    def receive(self, event: Event) -> None:
        """Keep the latest of an answer."""
        self.choices[self._index[event.request]] = event
        if not isinstance(event, Generation):
            return
        self._votes.in_flight -= 1
        if event.finish_reason in ("aborted", "error"):
            self._votes.max_samples -= 1
        else:
            self._votes.add(None, event.tokens)

    def follow_ups(self) -> list[Request]:
        """Nothing: an answer is whole."""
        return []

    def conclude(self) -> list[Request]:
        """Nothing: an answer is whole."""
        return []

    def cancelled(self) -> list[str]:
        """Nothing."""
        return []

    def votes(self) -> Votes:
        """Finished answers, none of which is compared with another."""
        return self._votes

    def certainty(self) -> Certainty:
        """Nothing is known of it."""
        return Certainty(0.0, "none", 0)

    def answer(self) -> Answer:
        """No value that could be compared; the texts so far."""
        texts = [choice.text for choice in self.choices if choice is not None]
        return Answer(None, tuple(Candidate(text, 1, 1.0, text) for text in texts))

    def remaining(self) -> int:
        """Answers that were not yet asked for."""
        return len(self.choices) - self._proposed
