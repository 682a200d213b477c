"""When a running sample is a lost one: so improbable by now that its vote would weigh nearly nothing.

A sample that is as unlikely, token by token, as the wrong ones are will hardly be right, and its vote
would hardly count (`certaindex.evidence`). Its remaining tokens are better spent on a fresh sample. So
its likelihood so far is looked at every few tokens, and it is cut below a floor. How low that must be,
and whether it pays, is learned from recorded samples: the highest floor at which next to none of the
evidence for the answers on which queries settle is lost.

Ending doubtful samples early by the model's own confidence: Fu et al., "Deep Think with Confidence"
(DeepConf), 2025, by the lowest confidence of a group of tokens; the likelihood and the price are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from certaindex.evidence import Evidence
from certaindex.votes import Votes

CHANCES = (0.03, 0.05)
"""Of these probabilities to be right one is learned, below which a sample is cut.

Above the last a vote still counts where all votes are weak: of a query that will be given up, the few
that are not cut decide. Cut below 0.2, the embedded model loses a quarter of a point more than below
0.05 and takes 5% fewer tokens (docs/results/evidence.md).
"""
MOST_LOST = 0.01
"""Share of the evidence that may be lost."""
LEAST_SAVED = 0.05
"""Share of the tokens that must be saved."""
LOOKS = 16
"""Looks at a sample of mean length, about; each costs the engine and us a little."""
CLOSEST = 8
"""Fewest tokens between two looks."""


@dataclass(frozen=True, slots=True)
class EarlyCut:
    """Cuts a sample whose likelihood so far is below a floor.

    Attributes:
        floor: least likelihood (see `certaindex.evidence`) of the tokens so far, nats.
        every: tokens between two looks.
    """

    floor: float
    every: int

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """What was learned of a model; None where cutting does not pay."""
        if evidence.cut_below == 0 or evidence.slope <= 0:
            return None
        return cls(_floor(evidence, evidence.cut_below), evidence.look_every)

    def lost_at(self, logprobs: Sequence[float]) -> int | None:
        """Tokens at which the sample was lost, a multiple of `every`; None if it was not.

        Args:
            logprobs: of the tokens of a sample that runs; without the last of one that has ended,
                for nothing was left to cut there.
        """
        total = 0.0
        for tokens, value in enumerate(logprobs, 1):
            total += value
            if tokens % self.every == 0 and total < self.floor * sqrt(tokens):
                return tokens
        return None


def _floor(evidence: Evidence, chance: float) -> float:
    """Likelihood at which a sample is right with this probability."""
    odds = log(chance / (1 - chance))
    return evidence.center + evidence.scale * (odds - evidence.bias) / evidence.slope


class CutSamples:
    """The samples of one query that were cut: never all, and no verdict before its time.

    As long as the query has no answer, one of its samples is spared: the first, and where that ends
    without one, the next. A cut sample counts as one that gave no answer; but not before there is an
    answer, nor while one that was begun before it still runs. For the lost are known to be so long
    before the others have ended, and no rule shall give a query up because of that.

    Attributes:
        spared: index of the sample that is not to be cut; None where any may be.
    """

    def __init__(self) -> None:
        self.spared: int | None = 0
        self._uncounted: list[tuple[int, int]] = []  # index, tokens

    def was_cut(self, index: int, tokens: int, votes: Votes, running: Collection[int]) -> None:
        """A sample was cut after so many tokens.

        Args:
            index: of the sample.
            tokens: that it had.
            votes: of the query.
            running: indices of those that run and were not cut.
        """
        self._uncounted.append((index, tokens))
        self._count(votes, running)

    def has_ended(self, index: int, votes: Votes, running: Collection[int], following: int) -> None:
        """A sample ended by itself, or failed, and is counted.

        Args:
            index: of the sample.
            votes: of the query, with its vote.
            running: indices of those that run and were not cut.
            following: index of the sample that would be begun next.
        """
        if votes.answered:
            self.spared = None
        elif index == self.spared:
            self.spared = min(running, default=following)
        self._count(votes, running)

    def _count(self, votes: Votes, running: Collection[int]) -> None:
        if not votes.answered or not self._uncounted:
            return
        first = min(running, default=inf)
        for index, tokens in self._uncounted:
            if index < first:
                votes.add(None, tokens)
        self._uncounted = [cut for cut in self._uncounted if cut[0] > first]


class CutLesson(NamedTuple):
    """What recorded samples say of cutting.

    Attributes:
        below: chance to be right below which a sample is cut; 0 where cutting does not pay.
        every: tokens between two looks.
        saved: share of all tokens that cutting saves.
        lost: share of the evidence for a query's answer that is lost, mean over queries.
    """

    below: float
    every: int
    saved: float
    lost: float


class _Measured(NamedTuple):
    """What a sample is worth: its evidence and tokens, and its likelihood at each look."""

    evidence: float
    tokens: int
    looks: NDArray[np.float64]  # (looks,) nats


Graded = tuple[Sequence[float], bool]
"""Log-probabilities of a sample's tokens, and whether it gave the answer on which its query settled."""


def fit_cut(evidence: Evidence, queries: Sequence[Sequence[Graded]]) -> CutLesson:
    """The largest chance in `CHANCES` that loses at most `MOST_LOST` of the evidence.

    The evidence of a query is the sum of the weights of the votes for its answer. Every sample counts
    as one that may be cut.

    Args:
        evidence: what was learned of the model.
        queries: recorded samples of each query.
    """
    lengths = [len(logprobs) for samples in queries for logprobs, _ in samples]
    every = _interval(sum(lengths) / max(len(lengths), 1))
    best = CutLesson(0.0, every, 0.0, 0.0)
    if evidence.slope <= 0:
        return best
    measured = [[_measure(evidence, every, *sample) for sample in samples] for samples in queries]
    for chance in CHANCES:
        lesson = _cut_all(measured, chance, every, _floor(evidence, chance))
        if lesson.lost <= MOST_LOST and lesson.saved >= LEAST_SAVED:
            best = lesson
    return best


def _interval(mean: float) -> int:
    """A power of two, so that a sample of mean length is looked at about `LOOKS` times."""
    every = CLOSEST
    while 2 * every * LOOKS <= mean:
        every *= 2
    return every


def _measure(evidence: Evidence, every: int, logprobs: Sequence[float], agreed: bool) -> _Measured:
    sums = np.cumsum(np.asarray(logprobs, dtype=np.float64))
    tokens = np.arange(every, len(sums), every)
    looks = sums[tokens - 1] / np.sqrt(tokens)
    return _Measured(evidence.weigh(logprobs) if agreed else 0.0, len(sums), looks)


def _cut_all(
    queries: Sequence[Sequence[_Measured]], chance: float, every: int, floor: float
) -> CutLesson:
    """What is saved and lost below one floor."""
    spent = whole = 0
    lost: list[float] = []
    for samples in queries:
        kept = total = 0.0
        for sample in samples:
            below = np.flatnonzero(sample.looks < floor)
            spent += every * (int(below[0]) + 1) if len(below) else sample.tokens
            kept += 0.0 if len(below) else sample.evidence
            whole += sample.tokens
            total += sample.evidence
        if total:
            lost.append(1 - kept / total)
    return CutLesson(chance, every, 1 - spent / max(whole, 1), sum(lost) / max(len(lost), 1))
