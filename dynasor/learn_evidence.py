"""Learn from recorded samples of a model what their likelihood says; no right answers are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from certaindex.early_cut import CutLesson, Graded, fit_cut
from certaindex.evidence import Evidence, fit_evidence, likelihood, separation
from dynasor.errors import DataError
from dynasor.recorded_query import RecordedQuery


class Lesson(NamedTuple):
    """What was learned.

    Attributes:
        evidence: the logistic function, and below which chance a running sample is cut.
        agreed: share of the samples that gave the answer of their siblings.
        separation: probability that such a sample is likelier than another one; 0.5 is chance.
        queries: that taught it.
        cut: what cutting saves and loses.
    """

    evidence: Evidence
    agreed: float
    separation: float
    queries: int
    cut: CutLesson


def learn_evidence(queries: Sequence[RecordedQuery]) -> Lesson:
    """Compare each sample with the majority of its siblings, itself left out.

    Raises:
        DataError: if the samples lack log-probabilities, or are too few or all alike.
    """
    if any(not query.logprobs for query in queries):
        raise DataError(
            "some samples lack log-probabilities; record with --logprobs, on an engine that gives them"
        )
    graded: list[list[Graded]] = []
    for query in queries:
        counts = Counter(group for group in query.groups if group is not None)
        if len(query.groups) < 3 or not counts:
            continue
        graded.append(
            [
                (logprobs, group is not None and group == _leader_without(counts, group))
                for group, logprobs in zip(query.groups, query.logprobs, strict=True)
            ]
        )
    values = [likelihood(logprobs) for samples in graded for logprobs, _ in samples]
    agreed = [agrees for samples in graded for _, agrees in samples]
    try:
        evidence = fit_evidence(values, agreed)
    except ValueError as error:
        raise DataError(f"{error}; record more samples a question, of more questions") from None
    cut = fit_cut(evidence, graded)
    evidence = replace(evidence, cut_below=cut.below, look_every=cut.every)
    agreement, told = sum(agreed) / len(agreed), separation(values, agreed)
    return Lesson(evidence, agreement, told, len(graded), cut)


def _leader_without(counts: Counter[int], group: int) -> int | None:
    """The most frequent group with one vote of `group` taken away; a tie against it stays so."""
    others = max((count for other, count in counts.items() if other != group), default=0)
    return group if counts[group] - 1 > others or not others else None
