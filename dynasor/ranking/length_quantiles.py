"""Where a length stands among all lengths, also where some are only lower bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def length_quantiles(tokens: Floats, cut: NDArray[np.bool_]) -> Floats:
    """The quantile of each length, 0 (shortest) to 1, under the Kaplan-Meier estimate of lengths.

    A whole answer stands in the middle of its step of the distribution. One that a limit cut is longer
    than its bound, and gets the mean of the quantiles above it.

    Args:
        tokens: (n,) lengths, or their lower bounds.
        cut: (n,) which of them are bounds.

    Returns:
        (n,) float64.
    """
    values, place = np.unique(tokens, return_inverse=True)
    ended = np.bincount(place, ~cut, len(values))
    there = np.bincount(place, minlength=len(values))[::-1].cumsum()[::-1]
    after = np.cumprod(1 - ended / there)
    before = np.concatenate([[1.0], after[:-1]])
    return np.asarray(1 - np.where(cut, after[place], before[place] + after[place]) / 2)
