"""Bootstrap intervals over queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]


def bootstrap(
    values: NDArray[np.float64],
    over: NDArray[np.float64] | None = None,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of `values` (of mean values / mean `over`, where given).

    Args:
        values: (queries,) one number a query.
        over: (queries,) denominators, drawn together with their values.
        draws: resamples of the queries.
        level: coverage.
        seed: of the resamples; the same seed pairs two calls on the same queries.
    """
    size = len(values)
    picks = np.random.default_rng(seed).integers(size, size=(draws, size))
    means = values[picks].mean(axis=1)
    if over is not None:
        means = means / over[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
