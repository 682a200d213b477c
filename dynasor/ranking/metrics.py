"""How well scores order prompts by the length of their answers.

Lengths that a limit cut are lower bounds. Kendall's tau counts only pairs whose order is sure; the other
measures take a cut length at its bound, which is right against every shorter answer.
Where all scores are the same they say nothing: tau and Spearman are then 0, and the others what a random
order would give.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata, spearmanr

from dynasor.errors import DataError

Floats = NDArray[np.float64]
_GRADES = 10
_BLOCK = 512
"""Rows of the matrix of pairs that are looked at together."""


def checked_scores(scores: ArrayLike, count: int, ranker: str) -> Floats:
    """Scores as an array, one for each prompt.

    Raises:
        DataError: if a score is no finite number, or their number is wrong.
    """
    found = np.asarray(scores, np.float64)
    if found.shape != (count,):
        raise DataError(f"ranker {ranker}: gave scores of shape {found.shape} for {count} prompts")
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise DataError(
            f"ranker {ranker}: {len(wrong)} of {count} scores are not finite numbers, the first of "
            f"them {found[wrong[0]]} for prompt {wrong[0] + 1}; train the model again"
        )
    return found


def checked_tokens(tokens: ArrayLike) -> Floats:
    """Lengths as an array.

    Raises:
        DataError: if there is no order to predict: fewer than two lengths, or all the same.
    """
    found = np.asarray(tokens, np.float64)
    if len(found) < 2:
        raise DataError(f"{len(found)} example(s): an order needs at least 2; give more data")
    if (found == found[0]).all():
        raise DataError(
            f"all {len(found)} answers have {found[0]:g} tokens: there is no order to predict; "
            "give other data"
        )
    return found


def kendall_tau(scores: Floats, tokens: Floats, cut: NDArray[np.bool_] | None = None) -> float:
    """Kendall's tau-b: (concordant - discordant) / geometric mean of the pairs that are not tied.

    Args:
        scores: (n,), higher for longer.
        tokens: (n,) lengths.
        cut: (n,) whether a length is only a lower bound; pairs whose order that leaves open are
            left out, as in Harrell's C.
    """
    if cut is not None and cut.any():
        return _sure_tau(scores, tokens, cut)
    return _or_zero(kendalltau(scores, tokens).statistic) if np.ptp(scores) else 0.0


def spearman(scores: Floats, tokens: Floats) -> float:
    """Spearman's rank correlation."""
    return _or_zero(spearmanr(scores, tokens).statistic) if np.ptp(scores) else 0.0


def ndcg(scores: Floats, tokens: Floats) -> float:
    """Normalised discounted cumulative gain of the order from short to long (Järvelin and Kekäläinen).

    The gain is 2^grade - 1, where the grade is 9 for the shortest tenth of the answers and 0 for the
    longest; the discount is 1 / log2(1 + place). Equal scores share the mean gain of their places.
    """
    share = (rankdata(tokens, "average") - 0.5) / len(tokens)
    gains = 2.0 ** (_GRADES - 1 - np.floor(share * _GRADES)) - 1
    discounts = 1 / np.log2(np.arange(2, len(tokens) + 2))
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mean_gains = np.bincount(group, weights=gains) / sizes
    reached = float((np.repeat(mean_gains, sizes) * discounts).sum())
    return reached / float((np.sort(gains)[::-1] * discounts).sum())


def shortest_overlap(scores: Floats, tokens: Floats, share: float) -> float:
    """How many of the shortest answers are among those predicted to be shortest; 0 to 1.

    Args:
        scores, tokens: (n,).
        share: which part counts as shortest, such as 0.1; at least one prompt, and all that are as
            short as the last of them. A random order reaches about this much.
    """
    count = max(1, round(share * len(tokens)))
    shortest = tokens <= np.partition(tokens, count - 1)[count - 1]
    border = np.partition(scores, count - 1)[count - 1]
    below, at = scores < border, scores == border
    left = (count - below.sum()) / at.sum()  # those at the border share the places that are left
    return min(1.0, float(shortest @ (below + left * at)) / count)  # rounding may pass 1


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)


def _sure_tau(scores: Floats, tokens: Floats, cut: NDArray[np.bool_]) -> float:
    """Tau-b over the pairs whose order is sure, a block of rows of the (n, n) matrix at a time."""
    agreement = untied_tokens = untied_scores = 0.0
    for start in range(0, len(tokens), _BLOCK):
        rows = slice(start, start + _BLOCK)
        sure = sure_order(tokens[rows], cut[rows], tokens, cut)
        known = sure != _UNKNOWN
        by_length = np.where(known, sure, 0)
        by_score = np.where(known, np.sign(scores[rows, None] - scores[None, :]), 0)
        agreement += float((by_length * by_score).sum())
        untied_tokens += float(np.count_nonzero(by_length))
        untied_scores += float(np.count_nonzero(by_score))
    return (
        agreement / math.sqrt(untied_tokens * untied_scores)
        if untied_scores and untied_tokens
        else 0.0
    )


_UNKNOWN = 2


def sure_order(
    tokens: Floats, cut: NDArray[np.bool_], others: Floats, others_cut: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Which of two answers is longer, as far as that is sure: 1, -1, 0 for the same, 2 for unknown.

    An answer that was cut is longer than any whole one of as many tokens or fewer; against a longer one,
    or another that was cut, nothing is known.

    Args:
        tokens, cut: (m,) lengths, and whether they are lower bounds.
        others, others_cut: (n,) the same of those they are compared with.

    Returns:
        (m, n) int8.
    """
    mine, theirs = cut[:, None], others_cut[None, :]
    order = np.sign(tokens[:, None] - others[None, :]).astype(np.int8)
    order = np.where(mine & ~theirs, np.where(order >= 0, 1, _UNKNOWN), order)
    order = np.where(~mine & theirs, np.where(order <= 0, -1, _UNKNOWN), order)
    order = np.where(mine & theirs, _UNKNOWN, order)
    return order.astype(np.int8)
