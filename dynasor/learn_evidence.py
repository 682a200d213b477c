"""Learn from recorded samples of a model what their likelihood says; no right answers are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from certaindex.evidence import Evidence, fit_evidence, separation
from dynasor.errors import DataError
from dynasor.replay import RecordedQuery


class Lesson(NamedTuple):
    """What was learned.

    Attributes:
        evidence: the logistic function.
        agreed: share of the samples that gave the answer of their siblings.
        separation: probability that such a sample is likelier than another one; 0.5 is chance.
        queries: that taught it.
    """

    evidence: Evidence
    agreed: float
    separation: float
    queries: int


def learn_evidence(queries: Sequence[RecordedQuery]) -> Lesson:
    """Compare each sample with the majority of its siblings, itself left out.

    Raises:
        DataError: if the samples lack log-probabilities, or are too few or all alike.
    """
    if any(not query.likelihoods for query in queries):
        raise DataError(
            "some samples lack log-probabilities; record with --logprobs, on an engine that gives them"
        )
    values: list[float] = []
    agreed: list[bool] = []
    taught = 0
    for query in queries:
        counts = Counter(group for group in query.groups if group is not None)
        if len(query.groups) < 3 or not counts:
            continue
        taught += 1
        for group, value in zip(query.groups, query.likelihoods, strict=True):
            values.append(value)
            agreed.append(group is not None and group == _leader_without(counts, group))
    try:
        evidence = fit_evidence(values, agreed)
    except ValueError as error:
        raise DataError(f"{error}; record more samples a question, of more questions") from None
    return Lesson(evidence, sum(agreed) / len(agreed), separation(values, agreed), taught)


def _leader_without(counts: Counter[int], group: int) -> int | None:
    """The most frequent group with one vote of `group` taken away; a tie against it stays so."""
    others = max((count for other, count in counts.items() if other != group), default=0)
    return group if counts[group] - 1 > others or not others else None
