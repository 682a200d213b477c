"""What the likelihood of samples says about their answers."""

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certaindex.evidence import Evidence, fit_evidence, likelihood, separation
from certaindex.stopping import parse_rule
from certaindex.votes import Votes

LEARNED = Evidence(center=-3.0, scale=1.5, slope=2.0, bias=0.5, samples=1000)


def drawn(slope, bias, count=20_000, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(-4.0, 2.0, count)
    odds = bias + slope * (values + 4.0) / 2.0
    return values, random.random(count) < 1 / (1 + np.exp(-odds))


@pytest.mark.parametrize(("slope", "bias"), [(1.5, 0.3), (0.0, -1.0), (-0.8, 2.0)])
def test_what_made_the_verdicts_is_found_again(slope, bias):
    found = fit_evidence(*drawn(slope, bias))
    assert (found.slope, found.bias) == pytest.approx((slope, bias), abs=0.08)
    assert (found.center, found.scale) == pytest.approx((-4.0, 2.0), abs=0.05)


def test_verdicts_without_error_give_a_finite_slope():
    values = np.linspace(-5, 0, 200)
    found = fit_evidence(values, values > -2)
    assert 5 < found.slope < 100
    assert found.probability(-4.9) < 0.05 < 0.95 < found.probability(-0.1)


@pytest.mark.parametrize(
    ("values", "agreed", "said"),
    [([0.0] * 10, [True] * 10, "100 samples"), (range(200), [True] * 200, "same verdict")],
)
def test_what_teaches_nothing_is_refused(values, agreed, said):
    with pytest.raises(ValueError, match=said):
        fit_evidence(list(values), agreed)


@given(st.lists(st.floats(), max_size=50))
def test_a_vote_weighs_a_bounded_surprise(logprobs):
    weight = LEARNED.weigh(logprobs)
    assert -log(1 - 0.02) * 0.999 <= weight <= -log(1 - 0.999) * 1.001


def test_likelier_samples_weigh_more_and_unknown_ones_count_one():
    assert LEARNED.weigh([-0.1] * 9) > LEARNED.weigh([-1.0] * 9) > LEARNED.weigh([-2.0] * 9)
    assert LEARNED.weigh(None) == LEARNED.weigh([]) == LEARNED.weigh([float("nan")]) == 1.0
    assert likelihood([-1.0] * 4) == -2.0


def test_separation_is_the_area_under_the_curve():
    values, agreed = [1.0, 2.0, 2.0, 3.0], [False, True, False, True]
    pairs = [(r, w) for r, a in zip(values, agreed, strict=True) if a
             for w, b in zip(values, agreed, strict=True) if not b]  # fmt: skip
    expected = sum((r > w) + (r == w) / 2 for r, w in pairs) / len(pairs)
    assert separation(values, agreed) == pytest.approx(expected)


def test_it_is_kept_as_one_line():
    assert Evidence.from_json(LEARNED.to_json()) == LEARNED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "must be an object"),
        ('{"center": 1}', "must be an object"),
        (replace(LEARNED).to_json().replace("1.5", '"wide"'), "scale must be a number"),
        (replace(LEARNED).to_json().replace("1.5", "0"), "scale must be above 0"),
        (replace(LEARNED).to_json().replace("2.0", "NaN"), "slope must be a number"),
    ],
)
def test_a_damaged_file_is_named(text, said):
    with pytest.raises((ValueError, json.JSONDecodeError), match=said):
        Evidence.from_json(text)


def votes_of(*weighted, budget=16):
    votes = Votes(max_samples=budget)
    for group, weight in weighted:
        votes.add(group, 10, weight)
    return votes


def test_one_sure_sample_is_enough_and_three_plain_ones_are():
    rule = parse_rule("evidence:2.5")
    assert rule.decide(votes_of((0, 3.0))).stop == "certain"
    assert rule.decide(votes_of((0, 1.0), (0, 1.0))).stop is None
    assert rule.decide(votes_of((0, 1.0), (0, 1.0), (0, 1.0))).stop == "certain"


def test_the_heavier_answer_leads_though_it_has_fewer_votes():
    votes = votes_of((0, 0.4), (0, 0.4), (1, 4.0))
    verdict = parse_rule("evidence:3").decide(votes)
    assert (verdict.stop, votes.leader) == ("certain", 1)
    assert verdict.value == pytest.approx(3.2)


def test_what_is_not_decided_by_the_middle_of_the_budget_is_given_up():
    rule = parse_rule("evidence:4")
    tied = [(0, 1.0), (1, 1.0)]
    assert rule.decide(votes_of(*tied * 3, (0, 1.0))).stop is None, "before the middle"
    assert rule.decide(votes_of(*tied * 4)).stop == "hopeless"
    ahead = [*tied * 3, (0, 1.0), (0, 1.0)]
    assert rule.decide(votes_of(*ahead)).stop == "hopeless", "though at this pace 4 by the end"
    assert rule.decide(votes_of(*[(0, 0.5)] * 7, (0, 0.6))).stop == "certain", "in the middle"
    assert rule.decide(votes_of((None, 1.0), (None, 1.0), budget=4)).stop == "hopeless"


def test_a_rule_of_no_lead_is_refused():
    with pytest.raises(ValueError, match="nats must be above 0"):
        parse_rule("evidence:0")
