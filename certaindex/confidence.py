"""Token confidence of one sample, to weigh its vote or to stop it early.

Fu et al., "Deep Think with Confidence" (DeepConf), 2025. The confidence of a token is the negative
mean of its k largest log-probabilities (eq. 2): high where the model is sure, for then all but the
first candidate are very improbable. Groups are sliding windows of tokens (eq. 3); the lowest of
them (eq. 6), the mean of the lowest tenth of them (eq. 5) and the tail (eq. 7) tell good traces from bad
ones better than the mean over all tokens does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ConfidenceStatistics(NamedTuple):
    """Confidence of one sample; all in nats, the larger the surer.

    Attributes:
        mean: over all tokens.
        lowest_group: mean of the least confident sliding group.
        tail: mean over the last tokens.
        bottom_tenth: mean of the lowest tenth of the sliding groups (at least one).
    """

    mean: float
    lowest_group: float
    tail: float
    bottom_tenth: float


def token_confidence(logprobs: ArrayLike) -> NDArray[np.float64]:
    """Confidence of each token.

    Args:
        logprobs: (tokens, k) the k largest log-probabilities of each token.

    Returns:
        (tokens,) float64.
    """
    values = np.asarray(logprobs, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 1:
        raise ValueError(f"logprobs must have shape (tokens, k), k >= 1, not {values.shape}")
    confidence: NDArray[np.float64] = -values.mean(axis=1)
    return confidence


def group_means(confidence: Sequence[float] | ArrayLike, group: int) -> NDArray[np.float64]:
    """Mean of each sliding group of `group` tokens; of all tokens, where there are fewer.

    Args:
        confidence: (tokens,) confidence of each token, at least one.
        group: tokens a group.

    Returns:
        (max(1, tokens - group + 1),) float64, in the order of the groups' last tokens.
    """
    values = np.asarray(confidence, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"confidence must have shape (tokens,), 1 or more, not {values.shape}")
    if group < 1:
        raise ValueError(f"group must be 1 token or more, not {group}")
    size = min(group, values.size)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    means: NDArray[np.float64] = (sums[size:] - sums[:-size]) / size
    return means


def confidence_statistics(
    confidence: Sequence[float] | ArrayLike, *, group: int = 2048, tail: int = 2048
) -> ConfidenceStatistics:
    """The four statistics of DeepConf for one sample.

    Args:
        confidence: (tokens,) confidence of each token, at least one.
        group: tokens a sliding group; a shorter sample is one group.
        tail: tokens at the end that `tail` averages.
    """
    if tail < 1:
        raise ValueError(f"tail must be 1 token or more, not {tail}")
    values = np.asarray(confidence, dtype=np.float64)
    means = group_means(values, group)
    tenth = max(1, means.size // 10)
    return ConfidenceStatistics(
        mean=float(values.mean()),
        lowest_group=float(means.min()),
        tail=float(values[-tail:].mean()),
        bottom_tenth=float(np.partition(means, tenth - 1)[:tenth].mean()),
    )
