"""The probabilities that rules compare with their thresholds, against scipy and brute force."""

from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from certaindex.rules.bayes_factor import probability_of_mode
from certaindex.rules.beta import (
    log_evidence_of_lead,
    probability_of_lead,
    probability_of_overtaking,
)

votes = st.integers(0, 64)


@settings(deadline=None)
@given(votes, votes)
def test_lead_is_the_beta_tail(first: int, second: int) -> None:
    expected = stats.beta.sf(0.5, first + 1, second + 1)
    assert probability_of_lead(first, second) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(votes, votes, votes)
def test_overtaking_is_the_beta_binomial_tail(first: int, second: int, remaining: int) -> None:
    further = stats.betabinom(remaining, second + 1, first + 1)
    expected = sum(
        further.pmf(k) for k in range(remaining + 1) if second + k > first + remaining - k
    )
    assert probability_of_overtaking(first, second, remaining) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30))
def test_evidence_is_the_integral(first: int, second: int) -> None:
    def ratio(x: float) -> float:
        return float(2 * (2 * x) ** first * (2 * (1 - x)) ** second)

    expected, _ = integrate.quad(ratio, 0.5, 1.0, points=[0.6, 0.75, 0.9])
    assert exp(log_evidence_of_lead(first, second)) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_evidence_is_a_martingale_of_equal_answers(first: int, second: int) -> None:
    up = exp(log_evidence_of_lead(first + 1, second))
    down = exp(log_evidence_of_lead(first, second + 1))
    assert (up + down) / 2 == pytest.approx(exp(log_evidence_of_lead(first, second)), rel=1e-9)
    assert down <= up


@pytest.mark.parametrize("counts", [(1,), (5, 3), (3, 2, 1), (20, 18, 7), (2, 2, 2), (64,)])
def test_mode_is_the_dirichlet_share(counts: tuple[int, ...]) -> None:
    draws = 200_000
    shares = np.random.default_rng(0).gamma([*counts, 0.3], size=(draws, len(counts) + 1))
    simulated = (shares.argmax(axis=1) == 0).mean()
    assert probability_of_mode(counts, 0.3) == pytest.approx(simulated, abs=5 / draws**0.5)
