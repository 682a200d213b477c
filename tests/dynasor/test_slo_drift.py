"""Drift: alarms are rare while nothing changes, however long one looks, and come soon when it does."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom, kstest

from dynasor.slo.drift import DriftWatch, _TraitWatch
from dynasor.slo.traits import Traits


def like(rng, harder=0.0):
    """A query: certain ones are short and take few samples."""
    certainty = float(np.clip(rng.beta(4, 1) - harder, 0, 1).round(1))
    samples = 3 + int(rng.poisson(8 * (1 - certainty)))
    return Traits(certainty, min(1.0, certainty + 0.1), samples, rng.gamma(4, 50 + 100 * harder))


def test_p_values_are_uniform_and_independent_also_with_ties_and_a_small_calibration():
    rng = np.random.default_rng(0)
    first, pairs = [], []
    for _ in range(300):
        values = rng.integers(4, size=12).astype(float)  # many ties
        watch, seen = _TraitWatch(sorted(values[:4])), []
        del watch._bettors[1:]
        watch._bettors[0].update = seen.append
        for value in values[4:]:
            watch.see(value, float(rng.random()))
        first += seen
        pairs += [(a - 0.5) * (b - 0.5) for a, b in pairwise(seen)]
    assert kstest(first, "uniform").pvalue > 0.001
    assert abs(np.mean(pairs)) < 4 * np.std(pairs) / len(pairs) ** 0.5


def test_false_alarms_come_at_most_at_the_stated_rate_though_one_looks_after_each_query():
    rng, risk, watches = np.random.default_rng(1), 0.25, 40
    alarms = 0
    for seed in range(watches):
        watch = DriftWatch([like(rng) for _ in range(15)], risk=risk, period=10_000, seed=seed)
        alarms += any(watch.see(like(rng)) for _ in range(50))
    assert alarms <= binom.ppf(0.999, watches, risk)


@pytest.mark.parametrize("calm", [0, 150])
def test_harder_queries_raise_the_alarm_soon_at_once_and_later(calm):
    rng = np.random.default_rng(2)
    watch = DriftWatch([like(rng) for _ in range(150)], risk=0.01, period=10_000, seed=0)
    assert not any(watch.see(like(rng)) for _ in range(calm))
    needed = next(n for n in range(1, 400) if watch.see(like(rng, harder=0.4)))
    assert needed < 120
    assert watch.alarm.queries == calm + needed
    assert max(watch.evidence.values()) >= 1
    assert watch.see(like(rng)) is None  # one watch, one alarm


def test_a_new_period_forgets_the_live_queries_of_the_last_one():
    rng = np.random.default_rng(3)
    watch = DriftWatch([like(rng) for _ in range(20)], risk=0.01, period=100, seed=0)
    for _ in range(101):
        watch.see(like(rng))
    assert watch.seen == 1
    assert len(watch._watches[0]._values) == 21


def test_a_watch_needs_something_to_compare_with():
    with pytest.raises(ValueError, match="no calibrated queries"):
        DriftWatch([], risk=0.01, period=100)
    with pytest.raises(ValueError, match="risk"):
        DriftWatch([Traits(1, 1, 1, 1)], risk=1.0, period=100)
