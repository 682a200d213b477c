"""Bayes factor that the leader is the most probable answer.

Komiyama et al., "Best-of-infinity: Asymptotic Performance of Test-Time Compute", 2025, section 3: a
Dirichlet process with concentration `concentration` over answers, and the Bayes factor of "the
leader is the mode" against "it is not".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import lgamma

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes

# Dirichlet shares are independent gamma variables over their sum, so "the leader is the largest" is
# one integral over the leader's gamma value: trapezoids on a grid that is denser near 0.
_UNIT_GRID = np.linspace(0.0, 1.0, 501)[1:] ** 2


@dataclass(frozen=True, slots=True)
class BayesFactor:
    """Stop when the Bayes factor is at least `threshold`.

    Attributes:
        threshold: least Bayes factor.
        concentration: weight of an unseen answer, in votes.
    """

    threshold: float = 10.0
    concentration: float = 0.3

    def __post_init__(self) -> None:
        require("bayes-factor", "threshold", self.threshold, "above 0", self.threshold > 0)
        fits = self.concentration > 0
        require("bayes-factor", "concentration", self.concentration, "above 0", fits)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the Bayes factor, with prior odds of 1 to the number of seen answers."""
        counts = sorted((c for c in votes.counts if c), reverse=True)
        if not counts:
            return Verdict(None, 0.0)
        leads = probability_of_mode(tuple(counts), self.concentration)
        value = len(counts) * leads / max(1.0 - leads, 1e-12)
        return certain_if(value >= self.threshold, value)


@lru_cache(maxsize=65536)
def probability_of_mode(counts: tuple[int, ...], concentration: float) -> float:
    """P(the first share is the largest) under Dirichlet(counts..., concentration)."""
    first, *others = counts
    x = _grid(first)
    density = np.exp((first - 1) * np.log(x) - x - lgamma(first))
    below = _gamma_cdf(concentration, first)
    for count in others:
        below = below * _gamma_cdf(float(count), first)
    return min(1.0, float(np.trapezoid(density * below, x)))


def _grid(first: int) -> NDArray[np.float64]:
    """(points,) where a gamma variable of shape `first` has its mass."""
    grid: NDArray[np.float64] = _UNIT_GRID * (first + 6 * first**0.5 + 40)
    return grid


@lru_cache(maxsize=65536)
def _gamma_cdf(shape: float, first: int) -> NDArray[np.float64]:
    """(points,) distribution function of a gamma variable on `_grid(first)`."""
    cdf: NDArray[np.float64] = gammainc(shape, _grid(first))
    return cdf
