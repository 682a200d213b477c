"""Groups of the same answer, by whatever notion of sameness; the exact one is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from certaindex.canonical import canonical


class Equivalence(Protocol):
    """What `AnswerGroups` needs to know about answers."""

    def same_as_any(self, new: str, representatives: Sequence[str]) -> int | None:
        """Index of an element of `representatives` that is the same answer as `new`, or None."""
        ...


def exact_match(a: str, b: str) -> bool:
    """Whether two answers have the same canonical string; no worker, no mathematics."""
    return canonical(a) == canonical(b)


class ExactEquivalence:
    """`exact_match` in place of an `AnswerEquivalence`."""

    def same(self, a: str, b: str) -> bool:
        """Whether both have the same canonical string."""
        return exact_match(a, b)

    def same_as_any(self, new: str, representatives: Sequence[str]) -> int | None:
        """Index of the first with the same canonical string, or None."""
        return next((i for i, other in enumerate(representatives) if exact_match(new, other)), None)


class AnswerGroups:
    """Groups of the same answer among those of one query, built one answer at a time.

    Args:
        equivalence: decides what is the same; asked once for each distinct canonical string.
    """

    def __init__(self, equivalence: Equivalence) -> None:
        self._equivalence = equivalence
        self._ids: dict[str, int] = {}  # canonical string -> group
        self._representatives: list[str] = []
        self._counts: list[int] = []

    @property
    def representatives(self) -> list[str]:
        """The first answer of each group, as written."""
        return list(self._representatives)

    @property
    def counts(self) -> list[int]:
        """Answers in each group."""
        return list(self._counts)

    def add(self, answer: str | None) -> int | None:
        """Group of the answer, 0, 1, 2... in order of first sight; None for no answer."""
        if answer is None:
            return None
        key = canonical(answer)
        group = self._ids.get(key)
        if group is None:
            group = self._equivalence.same_as_any(answer, self._representatives)
            if group is None:
                group = len(self._representatives)
                self._representatives.append(answer)
                self._counts.append(0)
            self._ids[key] = group
        self._counts[group] += 1
        return group
