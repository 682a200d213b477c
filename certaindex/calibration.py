"""Calibration with a guarantee: which settings lose at most epsilon, by what recorded queries say.

A setting (such as a stop rule with its threshold) has a *risk*: the mean loss over all queries that may
come. Calibration sees the losses of n queries only, drawn as those to come will be: they must be
exchangeable. The unit is the query. Many random orders of one query's samples are no more queries: they
share its question, and counted as if they did not they would make any bound look too good. So a
calibration looks at each query once, in one random order.

- *Learn then Test* (Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve
  Risk Control", 2021): a p-value for "the risk of this setting is above epsilon", and a correction for
  looking at many settings, so that with probability 1 - delta *all* certified settings keep their
  promise at once. Whoever then chooses among them, by whatever measure, needs no further correction.
  `fixed_sequence` for settings that stand in an order, from safe to bold, which was fixed without
  looking at these queries; `holm` where there is no such order.
- *Conformal risk control* (Angelopoulos et al., "Conformal Risk Control", 2022): the loss is at most
  epsilon in the mean over calibrations, which is less than a promise with confidence, and asks for
  fewer queries.

Losses are numbers from 0 to 1. An accuracy lost against the full budget is -1, 0 or 1; its positive part
("the full budget was right and this is not") is at least as large, so a bound of that holds for the
difference too, and it is 0 or 1, for which the exact test is far sharper than any for [-1, 1].
"""

from __future__ import annotations

from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Losses = NDArray[np.float64]
Mask = NDArray[np.bool_]


def p_value(losses: Losses, epsilon: float) -> float:
    """Of the hypothesis that the risk is above epsilon; small where the losses speak against it.

    Exact where all losses are 0 or 1: P(Binomial(n, epsilon) <= losses seen). Else the bound of
    Hoeffding and Bentkus (Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets", 2021,
    theorem 2).

    Args:
        losses: (queries,) of one setting, 0 to 1.
        epsilon: between 0 and 1, both excluded.

    Raises:
        ValueError: if there is no query, or a number is out of range.
    """
    return float(p_values(losses[None], epsilon)[0])


def p_values(losses: Losses, epsilon: float) -> NDArray[np.float64]:
    """`p_value` of each row of a table (settings, queries); (settings,) float64."""
    _check(losses, epsilon)
    size = losses.shape[1]
    if _is_binary(losses):
        exact: NDArray[np.float64] = stats.binom.cdf(losses.sum(axis=1), size, epsilon)
        return exact
    return np.array([_hoeffding_bentkus(mean, size, epsilon) for mean in losses.mean(axis=1)])


def upper_bound(losses: Losses, delta: float) -> float:
    """The least risk that these losses speak against at level delta: the risk is at most this with
    probability 1 - delta, for one setting that was chosen without looking at them.

    Clopper and Pearson's exact bound where all losses are 0 or 1; with none lost it is
    1 - delta ** (1 / n). Else `p_value` inverted.
    """
    _check(losses, delta)
    size = len(losses)
    if _is_binary(losses):
        lost = losses.sum()
        return 1.0 if lost == size else float(stats.beta.ppf(1 - delta, lost + 1, size - lost))
    mean = float(losses.mean())

    def excess(risk: float) -> float:
        return _hoeffding_bentkus(mean, size, risk) - delta

    highest = 1 - 1e-9
    if excess(highest) > 0:
        return 1.0
    return float(optimize.brentq(excess, mean, highest))


def fixed_sequence(p_values: NDArray[np.float64], delta: float) -> Mask:
    """Certified settings of an order: all up to the first whose p-value is above delta.

    Controls the chance of certifying any setting wrongly at delta, whatever the dependence, since a
    wrong one can be certified only if the first wrong one of the order is.
    """
    certified: Mask = np.logical_and.accumulate(p_values <= delta)
    return certified


def holm(p_values: NDArray[np.float64], delta: float) -> Mask:
    """Certified settings without an order (Holm, 1979): as sure, but each further setting costs."""
    order = np.argsort(p_values, kind="stable")
    levels = delta / (len(p_values) - np.arange(len(p_values)))
    certified = np.zeros(len(p_values), dtype=bool)
    certified[order] = np.logical_and.accumulate(p_values[order] <= levels)
    return certified


def risk_controlled(losses: Losses, epsilon: float) -> Mask:
    """Settings whose loss is at most epsilon in the mean over calibrations (conformal risk control).

    Needs losses that do not fall from a setting to the next bolder one. Where they do, each is raised
    to the largest of the safer ones: what holds for the raised losses holds for the true ones.

    Args:
        losses: (settings, queries), 0 to 1, safest setting first.
        epsilon: between 0 and 1, both excluded.
    """
    _check(losses, epsilon)
    raised = np.maximum.accumulate(losses, axis=0)
    size = losses.shape[1]
    controlled: Mask = (raised.sum(axis=1) + 1.0) / (size + 1) <= epsilon
    return controlled


def queries_needed(epsilon: float, delta: float | None, lost: float = 0.0) -> int:
    """Queries to calibrate on until a loss of at most epsilon can be certified.

    Args:
        epsilon: between 0 and 1, both excluded.
        delta: chance that the promise is broken; None for a promise in the mean.
        lost: true share of queries that are lost, 0 to below epsilon; by default the fewest queries
            that can ever do.

    Raises:
        ValueError: if no number of queries would do.
    """
    if not 0 <= lost < epsilon < 1:
        raise ValueError(f"lost must be 0 or more and below epsilon, not {lost} and {epsilon}")
    if delta is None:
        return ceil((1 - epsilon) / (epsilon - lost) - 1e-9)
    size = ceil(log(delta) / log1p(-epsilon))
    while stats.binom.cdf(round(lost * size), size, epsilon) > delta:
        size = ceil(1.02 * size) + 1
    return size


def _hoeffding_bentkus(mean: float, size: int, epsilon: float) -> float:
    if mean >= epsilon:
        return 1.0
    divergence = (1 - mean) * log((1 - mean) / (1 - epsilon))
    if mean > 0:
        divergence += mean * log(mean / epsilon)
    bentkus = np.e * stats.binom.cdf(ceil(size * mean - 1e-9), size, epsilon)
    return min(1.0, float(np.exp(-size * divergence)), float(bentkus))


def _is_binary(losses: Losses) -> bool:
    return bool(((losses == 0) | (losses == 1)).all())


def _check(losses: Losses, level: float) -> None:
    if not losses.size:
        raise ValueError("there are no queries to calibrate on")
    if not ((losses >= 0) & (losses <= 1)).all():
        raise ValueError(f"losses must be 0 to 1, not {losses.min()} to {losses.max()}")
    if not 0 < level < 1:
        raise ValueError(f"epsilon and delta must be between 0 and 1, not {level}")
