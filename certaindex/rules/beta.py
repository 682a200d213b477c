"""Beta and Beta-binomial probabilities of two competing answers, exact for whole counts.

With `first` and `second` votes and a uniform prior, the share of the first among the two is
Beta(first + 1, second + 1).
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, lgamma, log


@lru_cache(maxsize=65536)
def probability_of_lead(first: int, second: int) -> float:
    """P(Beta(first + 1, second + 1) > 1/2): the answer with `first` votes is the more probable one.

    Equal to P(Binomial(first + second + 1, 1/2) <= first).
    """
    tosses = first + second + 1
    ways, total = 1, 1  # binomial coefficients by recurrence, exact
    for k in range(first):
        ways = ways * (tosses - k) // (k + 1)
        total += ways
    return float(total / 2**tosses)


def log_beta(a: float, b: float) -> float:
    """Natural logarithm of the Beta function."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@lru_cache(maxsize=65536)
def probability_of_overtaking(first: int, second: int, remaining: int) -> float:
    """P(the second answer ends ahead) if all of the `remaining` samples give one of the two.

    P(X > (first - second + remaining) / 2) with X ~ BetaBinomial(remaining, second + 1, first + 1)
    the further votes of the second answer.
    """
    least = (first - second + remaining) // 2 + 1
    # P(X = 0), and from there by the ratio of neighbours: no gamma function a term.
    here = exp(log_beta(second + 1, first + 1 + remaining) - log_beta(second + 1, first + 1))
    total = 0.0
    for k in range(remaining + 1):
        if k >= least:
            total += here
        here *= (remaining - k) / (k + 1) * (second + 1 + k) / max(first + remaining - k, 1)
    return total


@lru_cache(maxsize=65536)
def log_evidence_of_lead(first: int, second: int) -> float:
    """ln of the Bayes factor of "the first is more probable" against "both are equally probable".

    The likelihood under a uniform prior on (1/2, 1), over the likelihood at 1/2:
    2^(first + second + 1) * integral of x^first (1 - x)^second from 1/2 to 1. As a function of the
    votes it is a martingale under the second hypothesis, and falls in `second`.
    """
    mass = log_beta(first + 1, second + 1) + log(probability_of_lead(first, second))
    return (first + second + 1) * log(2) + mass
