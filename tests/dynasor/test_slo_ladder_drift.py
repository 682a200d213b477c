"""Watches over several settings share one risk; and a watch goes on where another one was."""

import numpy as np
import pytest
from scipy.stats import binom

from dynasor.slo.drift import Begun, DriftWatch
from dynasor.slo.ladder_drift import LadderDrift
from dynasor.slo.traits import Traits


def query(rng, samples=3):
    certainty = round(float(rng.beta(4, 1)), 1)
    return Traits(certainty, certainty, samples + int(rng.poisson(2)), float(rng.gamma(4, 50)))


@pytest.mark.parametrize("watched", [1, 2, 5])
def test_all_settings_together_have_the_stated_risk_and_the_first_one_most_of_it(watched):
    rng = np.random.default_rng(0)
    drift = LadderDrift([[query(rng)]] * watched, risk=0.01, period=100)
    risks = list(drift._risks.values())
    assert sum(risks) == pytest.approx(0.01)
    assert risks[0] == max(risks) >= 0.005


def test_a_setting_of_which_nothing_is_known_is_not_watched():
    rng = np.random.default_rng(1)
    drift = LadderDrift([[], [query(rng)], []], risk=0.01, period=100)
    assert drift.evidence == dict.fromkeys(Traits._fields, 0.0)
    for level in (0, 1, 2, 2):
        drift.see(level, query(rng))
    assert drift.seen == 1
    assert LadderDrift([[]], risk=0.01, period=100).evidence == {}


def test_a_watch_that_goes_on_keeps_what_was_seen_and_won():
    rng = np.random.default_rng(2)
    reference = [query(rng) for _ in range(100)]
    first, unlike = (
        DriftWatch(reference, risk=0.01, period=1000, seed=0),
        Traits(0.1, 0.2, 9, 900.0),
    )
    for _ in range(40):
        first.see(query(rng))
    while max(first.evidence.values()) < 0.5:
        first.see(unlike)
    second = DriftWatch(reference, risk=0.01, period=1000, seed=0)
    second.go_on(first.begun())
    assert second.seen == first.seen
    assert second.evidence == pytest.approx(first.evidence)
    assert second._watches[0]._values == first._watches[0]._values
    afresh = DriftWatch(reference, risk=0.01, period=1000, seed=0)

    def needed(watch):
        return next(n for n in range(1, 500) if watch.see(unlike))

    assert needed(second) < needed(afresh)


def test_starting_anew_does_not_raise_false_alarms():
    rng, risk, watches, alarms = np.random.default_rng(3), 0.25, 15, 0
    for _ in range(watches):
        reference = [query(rng) for _ in range(15)]
        watch = DriftWatch(reference, risk=risk, period=1000)
        for number in range(40):
            if number % 2 == 0:
                begun, watch = watch.begun(), DriftWatch(reference, risk=risk, period=1000)
                watch.go_on(begun)
            if watch.see(query(rng)):
                alarms += 1
                break
    assert alarms <= binom.ppf(0.999, watches, risk)


@pytest.mark.parametrize(
    "begun",
    [Begun(((),) * 3, (0.0,) * 4), Begun(((1.0,), (), (), ()), (0.0,) * 4), Begun(((),) * 4, ())],
)
def test_what_is_no_period_is_refused(begun):
    watch = DriftWatch([Traits(1, 1, 1, 1)], risk=0.01, period=100)
    with pytest.raises(ValueError, match="as many live values"):
        watch.go_on(begun)
