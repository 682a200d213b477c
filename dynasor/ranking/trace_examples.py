"""Examples out of recorded traces: the samples of a question make one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dynasor.errors import DataError
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.grouping import ConversationGroups
from dynasor.ranking.prompt_text import prompt_text
from dynasor.traces import TraceSample

_NO_EVIDENCE = ("aborted", "error")
"""A sample that was cut because its siblings agreed says little of how long it would have been."""


@dataclass(slots=True)
class _Lengths:
    prompt: str
    count: int = 0
    cut: int = 0
    total: float = 0.0
    log_mean: float = 0.0
    log_squares: float = 0.0

    def add(self, tokens: int, cut: bool) -> None:
        """Welford's running mean and sum of squares of the logarithm."""
        self.count += 1
        self.cut += cut
        self.total += tokens
        change = math.log(tokens) - self.log_mean
        self.log_mean += change / self.count
        self.log_squares += change * (math.log(tokens) - self.log_mean)


def trace_examples(
    samples: Iterable[TraceSample],
    *,
    prompts: Mapping[str, str] | None = None,
    max_tokens: int | None = None,
    left_out: Counter[str],
) -> Iterator[LengthExample]:
    """One example a question: mean tokens, spread of their logarithm, share of cut samples.

    A sample is cut if its `finish_reason` is `length`, or if it has `max_tokens` tokens or more.
    Aborted and failed samples are left out, and those without tokens.

    Args:
        samples: of one model and one setting; in any order.
        prompts: texts of questions that the trace itself lacks, by `query`; or by `/17` for any query
            that ends so.
        max_tokens: the limit of the run, where the trace does not say which samples it ended.
        left_out: counts here what gives no example, by reason.

    Raises:
        DataError: if a question has no prompt.
    """
    questions: dict[str, _Lengths] = {}
    for sample in samples:
        if sample.finish_reason in _NO_EVIDENCE:
            left_out["aborted or failed samples"] += 1
            continue
        if sample.tokens == 0:
            left_out["samples without tokens"] += 1
            continue
        if sample.query not in questions:
            questions[sample.query] = _Lengths(_prompt(sample, prompts or {}))
        limit_hit = max_tokens is not None and sample.tokens >= max_tokens
        questions[sample.query].add(sample.tokens, sample.finish_reason == "length" or limit_hit)
    groups = ConversationGroups()
    for lengths in questions.values():
        group = groups.group(None, lengths.prompt)
        assert group is not None  # without a name there is nothing to contradict
        yield LengthExample(
            lengths.prompt,
            lengths.total / lengths.count,
            group,
            samples=lengths.count,
            spread=_spread(lengths),
            cut=lengths.cut / lengths.count,
        )


def _spread(lengths: _Lengths) -> float | None:
    if lengths.count < 2:
        return None
    return math.sqrt(lengths.log_squares / (lengths.count - 1))


def _prompt(sample: TraceSample, prompts: Mapping[str, str]) -> str:
    if sample.prompt is not None:
        return prompt_text(sample.prompt)
    for name in (sample.query, "/" + sample.query.rpartition("/")[2]):
        if name in prompts:
            return prompts[name]
    raise DataError(
        f"query {sample.query!r} of the trace has no field 'prompt'; give the questions with "
        "--questions, or record the trace with `dynasor record`"
    )
