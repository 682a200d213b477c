"""Finished siblings, running ones and the prior: what they say of a query's length."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from dynasor.ranking.length_prior import LengthPrior, PriorLearner
from dynasor.ranking.siblings import SiblingLengths

PRIOR = LengthPrior(log(500))


def lengths(*tokens, prior=PRIOR, limit=None):
    found = SiblingLengths(prior, limit)
    for each in tokens:
        found.ended(each)
    return found


def test_before_any_sample_it_is_the_prior():
    known = LengthPrior(log(500), centre_sd=0.5, spread=0.3, spread_sd=1e-6)
    one = lengths(prior=known).remaining([], 1)
    assert one.tokens == pytest.approx(500 * exp(0.5**2 / 2 + 0.3**2 / 2), rel=0.01)
    assert lengths(prior=known).remaining([], 3).tokens == pytest.approx(3 * one.tokens)


def test_siblings_overrule_the_prior_the_more_the_closer_they_are():
    near = [lengths(*[2000] * n).remaining([], 1).tokens for n in (0, 1, 2, 4, 16)]
    assert near == sorted(near)
    assert near[-1] == pytest.approx(2000, rel=0.05)
    agreeing, split = lengths(1900, 2000, 2100), lengths(200, 2000, 20000)
    wide = split.remaining([], 1)
    narrow = agreeing.remaining([], 1)
    assert narrow.high / narrow.low < wide.high / wide.low


def test_a_first_sample_that_surprises_is_believed_as_much_as_one_that_does_not():
    drawn = []
    for away in (0.5, 3.0):
        told = lengths(round(exp(PRIOR.centre + away))).remaining([], 1).tokens
        drawn.append(
            (log(told) - log(lengths(round(exp(PRIOR.centre))).remaining([], 1).tokens)) / away
        )
    assert drawn[1] > 0.95 * drawn[0]


def test_a_normal_with_known_spread_is_shrunk_by_the_textbook():
    known = LengthPrior(log(500), centre_sd=0.5, spread=0.4, spread_sd=1e-6)
    found = lengths(900, 1100, prior=known)
    precision = 1 / 0.25 + 2 / 0.16
    centre = (log(500) / 0.25 + (log(900) + log(1100)) / 0.16) / precision
    assert found.remaining([], 1).tokens == pytest.approx(
        exp(centre + 1 / precision / 2 + 0.16 / 2), rel=0.01
    )


def test_the_posterior_with_bounds_is_that_of_a_simulation():
    random = np.random.default_rng(0)
    spread = PRIOR.spread * np.exp(PRIOR.spread_sd * random.normal(size=1_000_000))
    centre = PRIOR.centre + PRIOR.centre_sd * random.normal(size=1_000_000)
    weight = np.ones_like(centre)
    for tokens in (600, 700):
        weight *= np.exp(-0.5 * ((log(tokens) - centre) / spread) ** 2) / spread
    # How far their mean lies from the prior is no evidence of the spread.
    width = np.sqrt(spread**2 / 2 + PRIOR.centre_sd**2)
    away = (log(600) + log(700)) / 2 - PRIOR.centre
    weight /= np.exp(-0.5 * (away / width) ** 2) / width
    for bound in (500, 1500, 900):
        weight *= ndtr((centre - log(bound)) / spread)
    kept = random.choice(len(centre), 100_000, p=weight / weight.sum())

    def draw(above):
        least = ndtr((log(above) - centre[kept]) / spread[kept]) if above else 0.0
        chance = np.minimum(least + (1 - least) * random.random(len(kept)), 1 - 1e-12)
        return np.minimum(np.exp(centre[kept] + spread[kept] * ndtri(chance)), 10_000) - above

    truth = draw(500) + draw(1500) + draw(0)
    found = lengths(600, 700, limit=10_000)
    found.ended(900, cut=True)
    told = found.remaining([500, 1500], 3)
    assert told.tokens == pytest.approx(truth.mean(), rel=0.03)
    assert np.mean((truth > told.low) & (truth < told.high)) == pytest.approx(0.8, abs=0.07)


def test_one_that_ran_on_and_on_makes_all_longer():
    assert lengths(600).remaining([3000], 2).tokens > 2 * lengths(600).remaining([], 1).tokens
    assert lengths(600).remaining([10], 1).tokens < lengths(600).remaining([], 1).tokens


def test_a_cut_sample_is_longer_than_it_looks():
    cut = SiblingLengths(PRIOR)
    cut.ended(1000, cut=True)
    assert cut.remaining([], 1).tokens > lengths(1000).remaining([], 1).tokens


def test_of_more_than_are_needed_each_counts_in_part():
    found = lengths(600, 700)
    both = found.remaining([100, 100], 2).tokens
    assert found.remaining([100, 100], 1).tokens == pytest.approx(both / 2)
    assert found.remaining([100, 100], 3).tokens > both


@given(
    st.lists(st.integers(0, 10**9), max_size=6),
    st.lists(st.integers(0, 10**9), max_size=6),
    st.floats(0, 64),
    st.floats(0, 1000),
    st.sampled_from([None, 1, 100, 10**9]),
)
@settings(max_examples=80, deadline=None)
def test_it_is_finite_whatever_comes(ended, running, samples, variance, limit):
    found = SiblingLengths(PRIOR, limit)
    for number, tokens in enumerate(ended):
        found.ended(tokens, cut=number % 3 == 0)
    told = found.remaining(running, samples, variance)
    assert 0 <= told.tokens < float("inf")
    assert 0 <= told.low <= told.high < float("inf")


@given(st.permutations([300, 350, 900, 1200]))
def test_the_order_of_siblings_says_nothing(order):
    told = lengths(*order).remaining([100], 3)
    assert told == pytest.approx(lengths(300, 350, 900, 1200).remaining([100], 3))


@pytest.mark.parametrize("values", [(float("nan"),), (1.0, 0.0), (1.0, 1.0, -1.0), (float("inf"),)])
def test_a_prior_is_finite_and_uncertain(values):
    with pytest.raises(ValueError, match="a prior must be finite"):
        LengthPrior(*values)


def taught(queries, priors):
    """A learner that has seen queries, each with 8 samples around its centre."""
    random, learner = np.random.default_rng(1), PriorLearner()
    for centre, said in zip(queries, priors, strict=True):
        ended = lengths(*np.exp(centre + 0.1 * random.normal(size=8)).astype(int).tolist())
        ended.teach(learner, LengthPrior(said))
    return learner


def test_queries_that_ended_teach_centre_deviation_and_spread():
    centres = np.random.default_rng(0).normal(7, 0.4, 400)
    found = taught(centres, [log(500)] * 400).set_right(PRIOR)
    assert found.centre == pytest.approx(7, abs=0.06)
    assert found.centre_sd == pytest.approx(0.4, abs=0.06)
    assert found.spread == pytest.approx(0.1, rel=0.15)
    assert PriorLearner().set_right(PRIOR) == PRIOR


def test_ranks_that_say_nothing_lose_their_slope_and_good_ones_keep_it():
    random = np.random.default_rng(0)
    centres = random.normal(7, 0.5, 400)
    good, useless = taught(centres, centres - 1), taught(centres, random.permutation(centres))
    short, long = LengthPrior(6.0), LengthPrior(7.0)
    right = [good.set_right(each).centre for each in (short, long)]
    assert right == pytest.approx([7, 8], abs=0.05)  # one too low throughout
    assert good.set_right(long).centre_sd < 0.25
    wrong = [useless.set_right(each).centre for each in (short, long)]
    assert wrong[1] - wrong[0] < 0.15


def test_a_query_without_a_finished_sample_teaches_nothing():
    learner = PriorLearner()
    ended = SiblingLengths(PRIOR)
    ended.ended(500, cut=True)
    ended.teach(learner, PRIOR)
    assert learner.set_right(PRIOR) == PRIOR
