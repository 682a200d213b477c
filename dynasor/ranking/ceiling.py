"""How well lengths can be ordered at all: answers to the same prompt differ in length by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynasor.errors import DataError
from dynasor.intervals import Interval
from dynasor.ranking.metrics import Floats, kendall_tau
from dynasor.ranking.resampling import Picks, interval, resample


class Ceiling(NamedTuple):
    """Kendall's tau that knowing other answers to the same prompts gives; 95% intervals over prompts.

    Attributes:
        prompts: with two answers or more.
        answers: of these prompts.
        twin: one answer predicted by one other.
        median: one answer predicted by the median of all others, which is about what a perfect ranker
            knows if the others are many; their mean orders worse where a few are very long.
    """

    prompts: int
    answers: int
    twin: float
    twin_interval: Interval
    median: float
    median_interval: Interval


def ceiling(
    lengths: Sequence[Floats],
    cut: Sequence[NDArray[np.bool_]],
    *,
    repeats: int = 8,
    draws: int = 200,
    seed: int = 0,
) -> Ceiling:
    """Predict answers by their siblings.

    Args:
        lengths: for each prompt the tokens of its answers, (answers,).
        cut: likewise, which of them a limit ended; orders that this leaves open do not count.
        repeats: choices of an answer and its twin, over which tau is averaged.
        draws: bootstrap sets of prompts.
        seed: of the choices and the bootstrap.

    Raises:
        DataError: if fewer than two prompts have two answers.
    """
    several = [(n, c) for n, c in zip(lengths, cut, strict=True) if len(n) > 1]
    if len(several) < 2:
        raise DataError(
            "a ceiling needs at least 2 prompts with 2 answers each; record more samples"
        )
    random = np.random.default_rng(seed)
    chosen = [_choose(several, random) for _ in range(repeats)]

    names = [str(number) for number in range(len(several))]

    def tau(twin: bool) -> tuple[float, Interval]:
        def of(at: Picks) -> float:
            taus = [
                kendall_tau((one.twin if twin else one.median)[at], one.answer[at], one.cut[at])
                for one in chosen
            ]
            return float(np.mean(taus))

        found = resample(of, names, draws=draws, seed=seed)
        return of(np.arange(len(several))), interval(found)

    return Ceiling(
        len(several), sum(len(each) for each, _ in several), *tau(twin=True), *tau(twin=False)
    )


class _Choice(NamedTuple):
    """An answer of each prompt, (prompts,), whether it was cut, another, the median of all others."""

    answer: Floats
    cut: NDArray[np.bool_]
    twin: Floats
    median: Floats


def _choose(
    several: Sequence[tuple[Floats, NDArray[np.bool_]]], random: np.random.Generator
) -> _Choice:
    rows = []
    for tokens, cut in several:
        one, other = random.choice(len(tokens), size=2, replace=False)
        median = np.median(np.delete(tokens, one))
        rows.append((tokens[one], cut[one], tokens[other], median))
    answer, ends, twin, median_of_others = (np.array(column) for column in zip(*rows, strict=True))
    return _Choice(answer, ends.astype(bool), twin, median_of_others)
