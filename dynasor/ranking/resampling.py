"""Bootstrap of measures that are no means, such as Kendall's tau: whole conversations are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dynasor.intervals import Interval

Picks = NDArray[np.intp]


def resample(
    measure: Callable[[Picks], float],
    groups: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The measure on data sets drawn with replacement, group by group.

    Args:
        measure: of the examples at the given places, which may occur several times.
        groups: (n,) name of the group of each example; examples of a group are drawn together, for
            they are not independent.
        draws: data sets.
        seed: the same seed draws the same data sets, so that the draws of two rankers pair.

    Returns:
        (draws,) float64.
    """
    _, of_example = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(of_example, kind="stable")
    sizes = np.bincount(of_example)
    starts = np.cumsum(sizes) - sizes
    random = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        drawn = random.integers(len(sizes), size=len(sizes))
        lengths = sizes[drawn]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found[draw] = measure(order[np.repeat(starts[drawn], lengths) + inside])
    return found


def interval(draws: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
