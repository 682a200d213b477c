"""The recorded samples of a query, as replay and the simulator look at them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from certaindex.early_cut import EarlyCut
from certaindex.evidence import Evidence, likelihood
from dynasor.traces import TraceSample


class Grouping(Protocol):
    """Sorts answers into groups of equivalent ones (`certaindex.equivalence.AnswerGroups`)."""

    def add(self, answer: str | None) -> int | None:
        """Group of the answer, a new one where it equals no earlier answer; None for no answer."""
        ...


class ExactGroups:
    """Groups answers that are the same text."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def add(self, answer: str | None) -> int | None:
        """Group of the answer."""
        return None if answer is None else self._ids.setdefault(answer, len(self._ids))


@dataclass(frozen=True, slots=True)
class RecordedQuery:
    """All recorded samples of one query, in the order of the file.

    Attributes:
        id: name of the query.
        groups: group of each sample's answer, None where it has none.
        tokens: output tokens of each sample.
        gold: group of the right answer, None where no sample gave it.
        graded: whether the right answer is known.
        logprobs: of each sample's tokens, nats; empty where those of some were not recorded.
        confidence: of each sample's tokens, likewise.
    """

    id: str
    groups: tuple[int | None, ...]
    tokens: tuple[int, ...]
    gold: int | None
    graded: bool = True
    logprobs: tuple[Sequence[float], ...] = ()
    confidence: tuple[Sequence[float], ...] = ()

    def weights(self, evidence: Evidence | None) -> Sequence[float]:
        """Vote weight of each sample: 1, or what its likelihood says."""
        if evidence is None or not self.logprobs:
            return [1.0] * len(self.groups)
        return [evidence.weigh(logprobs) for logprobs in self.logprobs]

    @property
    def likelihoods(self) -> list[float]:
        """Likelihood of each sample (see `certaindex.evidence`); empty where it is not known."""
        return [likelihood(logprobs) for logprobs in self.logprobs]

    def lost_at(self, cut: EarlyCut | None) -> Sequence[int | None]:
        """Tokens after which each sample would be cut, None where it would not."""
        if cut is None or not self.logprobs:
            return [None] * len(self.groups)
        return [cut.lost_at(logprobs[:-1]) for logprobs in self.logprobs]


def collect_queries(
    samples: Iterable[TraceSample], grouping: Callable[[], Grouping] = ExactGroups
) -> list[RecordedQuery]:
    """Gather the samples of each query and sort their answers into groups."""
    collected: dict[str, list[TraceSample]] = {}
    for sample in samples:
        collected.setdefault(sample.query, []).append(sample)
    return [_query(name, rows, grouping()) for name, rows in collected.items()]


def _query(name: str, rows: list[TraceSample], grouping: Grouping) -> RecordedQuery:
    groups = tuple(grouping.add(row.answer) for row in rows)
    gold = grouping.add(rows[0].gold)  # last, so that the gold text cannot stand for a group
    return RecordedQuery(
        name,
        groups,
        tuple(row.tokens for row in rows),
        gold if gold in set(groups) else None,
        graded=rows[0].gold is not None,
        logprobs=_of_all(row.logprobs for row in rows),
        confidence=_of_all(row.confidence for row in rows),
    )


def _of_all(values: Iterable[Sequence[float] | None]) -> tuple[Sequence[float], ...]:
    """What is known of each token of each sample; nothing where it is not known of one of them."""
    known = [array("d", each) if each else None for each in values]
    whole = tuple(each for each in known if each is not None)
    return whole if len(whole) == len(known) else ()


def is_right(query: RecordedQuery, answer: int | None) -> bool:
    """Whether an answer group is the gold one."""
    return answer is not None and answer == query.gold
