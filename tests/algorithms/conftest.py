"""What tests of programs share: answers in boxes, groups by text, ends of requests."""

from collections.abc import Callable
from typing import Any

import pytest

from algorithms.program import Generation, Request
from certaindex.answers import extract
from certaindex.equivalence import AnswerGroups


class SameText:
    """Answers are the same if their texts are."""

    def same_as_any(self, new: str, known: list[str]) -> int | None:
        return known.index(new) if new in known else None


def boxed(text: str) -> str | None:
    return extract(text, "boxed")


def fresh_groups() -> AnswerGroups:
    return AnswerGroups(SameText())


def ended(request: Request, answer: str | None = None, **more: Any) -> Generation:
    """The end of a request with a boxed answer, or with a `text` of its own."""
    text = more.pop("text", "" if answer is None else f"so \\boxed{{{answer}}}")
    return Generation(request.id, text, more.pop("tokens", 10), **more)


@pytest.fixture
def common() -> Callable[[], dict[str, Any]]:
    """Arguments that all programs take."""
    return lambda: {"extract": boxed, "groups": fresh_groups()}
