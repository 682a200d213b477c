"""Bounds of the audited loss hold at all times at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dynasor.slo.audited_loss import AuditedLoss


def audited(differed=0, same=0, dropped=0, risk=0.05):
    loss = AuditedLoss(risk=risk)
    loss.differed, loss.same, loss.dropped = differed, same, dropped
    return loss


@pytest.mark.parametrize("truth", [0.02, 0.3])
def test_the_truth_is_left_out_at_most_at_the_stated_rate_though_one_looks_after_each_audit(truth):
    rng, risk, runs = np.random.default_rng(0), 0.2, 100
    wrong = 0
    for _ in range(runs):
        loss, left_out = AuditedLoss(risk=risk), False
        for differed in rng.random(150) < truth:
            loss.count(differed=bool(differed))
            left_out |= loss.exceeds(truth)
        wrong += left_out
    assert wrong <= binom.ppf(0.999, runs, risk)


def test_a_broken_promise_is_seen_and_a_kept_one_is_not():
    assert audited(differed=12, same=88).exceeds(0.02)
    assert not audited(differed=2, same=98).exceeds(0.02)
    assert not audited(differed=0, same=10_000).exceeds(0.02)


@given(differed=st.integers(0, 300), same=st.integers(0, 3000), limit=st.floats(0.001, 0.999))
def test_the_bounds_hold_the_share_and_say_the_same_as_the_comparison(differed, same, limit):
    loss = audited(differed, same)
    low, high = loss.bounds
    share = 0.5 if loss.share is None else loss.share
    assert 0 <= low <= share + 1e-9 <= high + 2e-9 <= 1 + 2e-9
    if abs(limit - low) > 1e-6:
        assert loss.exceeds(limit) == (limit < low)


@given(differed=st.integers(0, 300), same=st.integers(1, 3000), limit=st.floats(0.001, 0.999))
def test_one_more_that_differs_in_the_place_of_one_that_is_the_same_only_raises_the_bounds(
    differed, same, limit
):
    # So settings that lose less than the limit raise no more alarms than one that loses just that.
    fewer, more = audited(differed, same), audited(differed + 1, same - 1)
    assert more.exceeds(limit) >= fewer.exceeds(limit)
    assert more.bounds.low >= fewer.bounds.low - 1e-9
    assert more.bounds.high >= fewer.bounds.high - 1e-9


def test_dropped_audits_speak_for_nothing():
    sure, doubtful = audited(differed=10, same=90), audited(differed=10, same=90, dropped=50)
    assert doubtful.bounds.low < sure.bounds.low
    assert doubtful.bounds.high > sure.bounds.high
    assert doubtful.share == sure.share == 0.1


def test_a_risk_is_a_probability():
    with pytest.raises(ValueError, match="risk"):
        AuditedLoss(risk=0)
