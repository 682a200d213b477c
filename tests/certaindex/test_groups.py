"""Groups of equivalent answers."""

from __future__ import annotations

from collections.abc import Sequence

from certaindex.equivalence import (
    AnswerEquivalence,
    AnswerGroups,
    ExactEquivalence,
    exact_match,
)


class _Counting(ExactEquivalence):
    """Counts what is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def same_as_any(self, new: str, representatives: Sequence[str]) -> int | None:
        self.asked.append((new, list(representatives)))
        return super().same_as_any(new, representatives)


def test_groups_number_answers_in_order_of_first_sight() -> None:
    groups = AnswerGroups(ExactEquivalence())
    answers = ["7", None, " 7.0 ", "8", "$7$", "9", None, "8."]
    assert [groups.add(answer) for answer in answers] == [0, None, 0, 1, 0, 2, None, 1]
    assert groups.representatives == ["7", "8", "9"]
    assert groups.counts == [3, 2, 1]


def test_groups_ask_once_for_each_canonical_string() -> None:
    counting = _Counting()
    groups = AnswerGroups(counting)
    for answer in ["x", "y", "$x$", "x", " y", None, "z", "z."]:
        groups.add(answer)
    assert counting.asked == [("x", []), ("y", ["x"]), ("z", ["x", "y"])]


def test_groups_use_algebra_only_for_what_is_new(equivalence: AnswerEquivalence) -> None:
    groups = AnswerGroups(equivalence)
    before = equivalence.stats.slow
    answers = [r"\sqrt{18}", r"3\sqrt{2}", r"3 \sqrt{2}", r"$\sqrt{18}$", "0.5", "1/2", "50%"]
    assert [groups.add(answer) for answer in answers] == [0, 0, 0, 0, 1, 1, 1]
    # 3 sqrt 2, 0.5, 1/2 (fast over all groups, before any algebra) and 50% (the same).
    assert equivalence.stats.slow - before == 2
    assert groups.representatives == [r"\sqrt{18}", "0.5"]


def test_exact_match() -> None:
    assert exact_match("$0.50", "0.5")
    assert not exact_match("0.5", "1/2")
    assert ExactEquivalence().same(" a ", "a")
