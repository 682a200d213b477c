"""Recorded questions for the simulator: what each sample would answer, and how many tokens it takes.

Programs whose requests are whole samples can be played on them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from algorithms.program import Program, Sampling
from algorithms.self_consistency import SelfConsistency, Weigh
from algorithms.task import Task
from certaindex.early_cut import EarlyCut
from certaindex.groups import AnswerGroups, ExactEquivalence
from dynasor.errors import DataError
from dynasor.ranking.prompt_text import prompt_text
from dynasor.recorded_query import RecordedQuery, collect_queries
from dynasor.traces import TraceSample

PROMPT_TOKENS = 200
"""Tokens of a prompt where the trace does not say."""
_SAMPLING = Sampling(top_logprobs=1)  # the samples are recorded, nobody draws

BuildProgram = Callable[[Task, int], Program]
"""Makes the program of a query from its task and the samples of its full budget."""


@dataclass(frozen=True, slots=True)
class RecordedQuestion:
    """A question with its recorded samples.

    Attributes:
        query: answers in groups, tokens, and which answer is right.
        prompt_tokens: of the question.
        prompt: its text, where the trace says it.
    """

    query: RecordedQuery
    prompt_tokens: int = PROMPT_TOKENS
    prompt: str | None = None

    def tokens(self, sample: int) -> int:
        """Output tokens of a sample; at least the one that ends it."""
        return max(1, self.query.tokens[sample])

    def text(self, sample: int) -> str:
        """What the sample answers: the number of its group; empty without an answer."""
        group = self.query.groups[sample]
        return "" if group is None else str(group)

    def logprobs(self, sample: int) -> Sequence[float] | None:
        """Log-probability of each token of a sample; None where that was not recorded."""
        return self.query.logprobs[sample] if self.query.logprobs else None

    def confidence(self, sample: int) -> Sequence[float] | None:
        """Confidence of each token of a sample; None where that was not recorded."""
        return self.query.confidence[sample] if self.query.confidence else None

    def is_right(self, answer: str | None) -> bool | None:
        """Whether an answer is the right one, None where that is not known."""
        if not self.query.graded:
            return None
        return answer is not None and answer == str(self.query.gold)

    def order(self, seed: str, samples: int) -> list[int]:
        """`samples` of the recorded ones in random order."""
        return random.Random(seed).sample(range(len(self.query.groups)), samples)


def collect_questions(
    samples: Iterable[TraceSample], *, prompt_tokens: int = PROMPT_TOKENS
) -> dict[str, RecordedQuestion]:
    """Gather a trace's finished samples by question; answers of the same text are the same.

    Args:
        samples: of a trace, see `dynasor.traces.read_traces`.
        prompt_tokens: of questions whose samples do not say.

    Raises:
        DataError: if there is no finished sample.
    """
    rows = [sample for sample in samples if sample.finish_reason not in ("aborted", "error")]
    if not rows:
        raise DataError("the trace holds no finished samples; record some first")
    tokens = {row.query: row.prompt_tokens for row in rows if row.prompt_tokens}
    texts = {row.query: prompt_text(row.prompt) for row in rows if row.prompt is not None}
    return {
        query.id: RecordedQuestion(query, tokens.get(query.id, prompt_tokens), texts.get(query.id))
        for query in collect_queries(rows)
    }


def check_budget(questions: Mapping[str, RecordedQuestion], samples: int) -> None:
    """See that each question has the samples of the full budget.

    Raises:
        DataError: naming the question that has not.
    """
    if samples < 1:
        raise DataError(f"samples = {samples}: the full budget must be 1 or more")
    for name, question in questions.items():
        if (recorded := len(question.query.groups)) < samples:
            raise DataError(
                f"samples = {samples}: question {name} has only {recorded} recorded ones; "
                "lower the budget or record more"
            )


def recorded_task(name: str) -> Task:
    """The task of a query whose answers are recorded; they are compared as they are."""
    return Task(
        name,
        "",
        sampling=_SAMPLING,
        extract=lambda text: text or None,
        groups=AnswerGroups(ExactEquivalence()),
    )


def self_consistency(weigh: Weigh | None = None, cut: EarlyCut | None = None) -> BuildProgram:
    """Builds self-consistency; see there for the vote's weight and for what is cut."""
    return lambda task, samples: SelfConsistency(task, samples=samples, weigh=weigh, cut=cut)
