"""How long the samples of one query are: a prior, its finished samples, and those that still run.

The logarithm of a sample's tokens is normal around the query's centre. The centre has a normal prior,
the rank's or that of all queries; the spread around it has a log-normal prior. Finished samples are
exact evidence; one that runs, or that a token limit cut, says that its length is more than it has now.

For each of a few spreads the posterior of the centre given the finished samples is normal in closed
form (Gelman et al., Bayesian Data Analysis, section 2.5), and the evidence for the spread is the
likelihood of the samples' squares around their own mean. How far that mean lies from the prior is no
evidence of it: prompts are misjudged further than a normal distribution would have it, and a first
sample that surprises would be taken for an odd one. Bounds have no closed form, so that posterior is put
on a few Gauss-Hermite nodes, which are weighed by the chance that the bounds leave. The finished samples
enter by their number, mean and squares alone, so an update costs the same after 1 sample and after
1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from dynasor.ranking.length_prior import LengthPrior, PriorLearner

Floats = NDArray[np.float64]

CENTRES, SPREADS = 7, 5
"""Nodes: so many centres for each of so many spreads."""
UNLIMITED = 30.0
"""Log tokens that no sample reaches."""
_INTERVAL = 1.2816  # standard deviations of a normal that hold 80%
_UNKNOWN = 1e-9  # stands for 0 tokens, which have no logarithm
_FAR = 8.0  # standard deviations from which on a tail is the same but for its scale


def _nodes(number: int) -> tuple[Floats, Floats]:
    """Points and weights that integrate over a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(number)
    return points, weights / weights.sum()


_CENTRE_POINTS, _CENTRE_WEIGHTS = _nodes(CENTRES)
_SPREAD_POINTS, _SPREAD_WEIGHTS = _nodes(SPREADS)
_LOG_CENTRES, _LOG_SPREADS = np.log(_CENTRE_WEIGHTS), np.log(_SPREAD_WEIGHTS)


class Remaining(NamedTuple):
    """Output tokens to come.

    Attributes:
        tokens: expected.
        low, high: between them with a chance of about 80%, those of a log-normal with the same
            mean and variance.
    """

    tokens: float
    low: float
    high: float


class SiblingLengths:
    """The posterior of one query's lengths.

    Args:
        prior: before any sample.
        limit: output tokens at which a sample is cut, None for none.
    """

    def __init__(self, prior: LengthPrior, limit: int | None = None) -> None:
        self.finished = 0
        self._prior = prior
        self._limit = UNLIMITED if limit is None else log(max(limit, 2))
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean
        self._cut: list[float] = []
        self._nodes: _Nodes | None = None

    def ended(self, tokens: int, *, cut: bool = False) -> None:
        """A sample has ended.

        Args:
            tokens: of its output.
            cut: whether a limit ended it, so that they are a lower bound.
        """
        length = log(max(tokens, 1))
        if cut:
            self._cut.append(length)
        else:
            self.finished += 1
            away = length - self._mean
            self._mean += away / self.finished
            self._squares += away * (length - self._mean)
        self._nodes = None

    def teach(self, learner: PriorLearner, prior: LengthPrior) -> None:
        """The query has ended: tell what its samples were like, where any finished by itself.

        Args:
            learner: of the priors.
            prior: that the learner had set right for this query.
        """
        if self.finished:
            learner.learn(prior, self.finished, self._mean, self._squares)

    def remaining(self, running: Sequence[int], samples: float, variance: float = 0.0) -> Remaining:
        """Tokens to come until so many more samples have finished.

        Those that run come first; of more than are needed, each counts in part, as any may be among
        the last, which are cut. What is cut later, of samples that are yet to begin, is not foreseen.

        Args:
            running: tokens so far of each sample that runs; 0 where not known.
            samples: expected number of samples that are yet to finish.
            variance: of that number.
        """
        if self._nodes is None:
            self._nodes = self._given_ended()
        nodes, weight = self._nodes, self._nodes.weight
        further = max(0.0, samples - len(running))
        left, inner, typical = further * nodes.mean, further * nodes.variance, nodes.mean
        if len(running):
            share = min(1.0, samples / len(running))
            so_far = np.array(running, dtype=np.float64)[:, None]
            past = nodes.deviations(np.log(np.maximum(so_far, _UNKNOWN)))
            weight = _scaled(nodes.log_weight + log_ndtr(-past).sum(axis=0))
            mean, varies = nodes.lengths_past(past)
            rest = np.maximum(mean - so_far, 0.0).sum(axis=0)
            left = left + share * rest
            inner = inner + share * varies.sum(axis=0)
            typical = typical if further else rest / len(running)
        tokens = float(weight @ left)
        spread = inner + variance * typical**2 + (left - tokens) ** 2
        return _interval(tokens, float(weight @ spread))

    def _given_ended(self) -> _Nodes:
        """The nodes, given the samples that have ended."""
        prior, n = self._prior, self.finished
        spreads = prior.spread * np.exp(prior.spread_sd * _SPREAD_POINTS)
        noise, wide = spreads**2, prior.centre_sd**2
        posterior = 1 / (1 / wide + n / noise)
        middle = posterior * (prior.centre / wide + n * self._mean / noise)
        evidence = _LOG_SPREADS.copy()
        if n > 1:
            evidence -= 0.5 * ((n - 1) * np.log(noise) + self._squares / noise)
        centre = (middle[:, None] + np.sqrt(posterior)[:, None] * _CENTRE_POINTS).ravel()
        spread = spreads.repeat(CENTRES)
        weight = (evidence[:, None] + _LOG_CENTRES).ravel()
        if self._cut:
            past = (np.array(self._cut)[:, None] - centre) / spread
            weight = weight + log_ndtr(-past).sum(axis=0)
        return _Nodes(centre, spread, weight, self._limit)


class _Nodes:
    """Log-normal distributions, their weights, and their moments; arrays of shape `(nodes,)`.

    Args:
        centre, spread: of log tokens.
        log_weight: up to a constant.
        limit: log tokens at which samples are cut.

    Attributes:
        weight: sums to 1.
        mean, variance: tokens of a sample that has not begun.
    """

    def __init__(self, centre: Floats, spread: Floats, log_weight: Floats, limit: float) -> None:
        self.log_weight = log_weight
        self.weight = _scaled(log_weight)
        self._centre, self._spread = centre, spread
        self._cut = exp(limit)
        end = (limit - centre) / spread
        over = ndtr(-end)
        # The parts of the partial moments below the limit and above it, for any bound.
        self._once = np.exp(centre + spread**2 / 2)
        self._twice = np.exp(2 * (centre + spread**2))
        self._more_once = self._cut * over - self._once * ndtr(spread - end)
        self._more_twice = self._cut**2 * over - self._twice * ndtr(2 * spread - end)
        self.mean = self._once + self._more_once
        self.variance = np.maximum(self._twice + self._more_twice - self.mean**2, 0.0)

    def deviations(self, length: Floats) -> Floats:
        """(samples, 1) log tokens in standard deviations from each centre, (samples, nodes)."""
        return (length - self._centre) / self._spread

    def lengths_past(self, past: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of the tokens of samples that are past a bound.

        Partial moments of the log-normal, written with upper tails, which do not cancel far out.

        Args:
            past: (samples, nodes) the bound; see `deviations`.
        """
        near = np.minimum(past, _FAR)
        chance = ndtr(-near)
        # Further out the excess over the bound hardly changes, as a share of the bound.
        beyond = np.exp(self._spread * (past - near))
        once = self._once * ndtr(self._spread - near) + self._more_once
        twice = self._twice * ndtr(2 * self._spread - near) + self._more_twice
        bound = np.exp(self._centre + self._spread * past)
        mean: Floats = np.minimum(np.maximum(once / chance * beyond, bound), self._cut)
        return mean, np.maximum(twice / chance * beyond**2 - mean**2, 0.0)


def _scaled(logarithms: Floats) -> Floats:
    """Weights that sum to 1."""
    weights: Floats = np.exp(logarithms - logarithms.max())
    weights /= weights.sum()
    return weights


def _interval(tokens: float, variance: float) -> Remaining:
    """The interval of a log-normal with this mean and variance."""
    if tokens < 1:
        return Remaining(tokens, 0.0, max(tokens, sqrt(variance)))
    square = log1p(variance / tokens**2)
    middle, reach = log(tokens) - square / 2, _INTERVAL * sqrt(square)
    return Remaining(tokens, exp(middle - reach), exp(middle + reach))
