"""The finished answers of one query: sorted into groups, counted, and named again at the end."""

from __future__ import annotations

from algorithms.program import Answer, Candidate
from certaindex.equivalence import AnswerGroups
from certaindex.votes import Votes


class Ballot:
    """Counts answers, and keeps the first text that led to each.

    Args:
        size: answers that the full budget allows.
        groups: groups equivalent answers; one fresh object a program.
    """

    def __init__(self, size: int, groups: AnswerGroups) -> None:
        self.votes = Votes(max_samples=size)
        self._groups = groups
        self._texts: list[str] = []  # group id -> the first text that gave its answer
        self._counted: dict[int, int] = {}  # group id -> its id among the votes, first come first

    def group(self, answer: str | None, text: str) -> int | None:
        """Group of an answer, which is not counted yet; None for no answer."""
        group = self._groups.add(answer)
        # The text comes first: somebody on another thread may look at the votes at any time.
        if group is not None and group == len(self._texts):
            self._texts.append(text)
        return group

    def count(
        self,
        answer: str | None,
        text: str,
        tokens: int,
        weight: float = 1.0,
        reward: float | None = None,
    ) -> int | None:
        """Count an answer (None: the text gave none) that took so many output tokens; its group."""
        group = self.group(answer, text)
        self.count_group(group, tokens, weight, reward)
        return group

    def count_group(
        self, group: int | None, tokens: int, weight: float = 1.0, reward: float | None = None
    ) -> None:
        """Count an answer whose group is known."""
        if group is not None:
            group = self._counted.setdefault(group, len(self._counted))
        self.votes.add(group, tokens, weight, reward)

    def weight(self, group: int) -> float:
        """Weight of the votes of a group so far."""
        place = self._counted.get(group)
        return 0.0 if place is None else self.votes.weights[place]

    def clear(self) -> None:
        """Forget the votes, to count them anew; the groups stay."""
        votes = self.votes
        self.votes = Votes(max_samples=votes.max_samples, in_flight=votes.in_flight)
        self._counted.clear()

    def answer(self) -> Answer:
        """The leading answer and all others, heaviest first."""
        votes, known = self.votes, list(self._counted)
        order = sorted(
            range(len(votes.counts)), key=lambda g: (g != votes.leader, -votes.weights[g], g)
        )
        candidates = tuple(
            Candidate(
                self._groups.representatives[known[g]],
                votes.counts[g],
                votes.weights[g],
                self._texts[known[g]],
            )
            for g in order
        )
        return Answer(candidates[0].answer if candidates else None, candidates)
