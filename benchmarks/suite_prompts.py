"""Prompts for traces that have none: from a suite, by the place in the name of a question."""

from __future__ import annotations

from collections.abc import Mapping

from dynasor.bench.recorded import RecordedQuestion
from dynasor.suites import load_suite


def with_prompts(
    questions: Mapping[str, RecordedQuestion], suite: str
) -> dict[str, RecordedQuestion]:
    """The questions with the texts of a suite; the number after the last `/` is the place in it."""
    texts = [query.question for query in load_suite(suite).queries]
    return {
        name: RecordedQuestion(each.query, each.prompt_tokens, texts[int(name.rsplit("/", 1)[-1])])
        for name, each in questions.items()
    }
