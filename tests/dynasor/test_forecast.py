"""What is foreseen of a query's remaining work."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.stopping import parse_rule
from certaindex.votes import Votes
from dynasor.scheduling.forecast import Forecast, Standing, samples_to_come, standing_of

DEFAULT, FIXED = parse_rule("default"), parse_rule("fixed")


def votes_of(text, max_samples=16, tokens=100):
    """Votes from letters, one an answer; "-" gave none."""
    votes, ids = Votes(max_samples=max_samples), {}
    for letter in text:
        votes.add(None if letter == "-" else ids.setdefault(letter, len(ids)), tokens)
    return votes


def test_a_rule_that_never_stops_early_takes_the_whole_budget():
    for n in (0, 5, 15, 16):
        assert samples_to_come(FIXED, Standing(n, 0, n), 16) == 16 - n


def test_agreement_is_nearer_to_its_end_than_a_tie():
    agreed = samples_to_come(DEFAULT, Standing(3, 0, 3), 16)
    tied = samples_to_come(DEFAULT, Standing(2, 2, 4), 16)
    assert 1 <= agreed < tied


def test_the_same_state_has_the_same_forecast():
    first = samples_to_come(DEFAULT, Standing(2, 1, 3), 16)
    samples_to_come.cache_clear()
    assert samples_to_come(DEFAULT, Standing(2, 1, 3), 16) == first


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 6), st.integers(1, 24))
@settings(max_examples=60, deadline=None)
def test_samples_to_come_fit_the_budget(first, second, others, max_samples):
    first, second = max(first, second), min(first, second)
    n = first + second + others
    expected = samples_to_come(DEFAULT, Standing(first, second, n), max_samples)
    assert (expected == 0) if n >= max_samples else (1 <= expected <= max_samples - n)


def test_surer_votes_settle_a_query_sooner():
    rule = parse_rule("evidence:4")
    doubtful, sure = Standing(1, 0, 1, 0.5), Standing(1, 0, 1, 2.0)
    assert samples_to_come(rule, sure, 16) < samples_to_come(rule, doubtful, 16)


def test_the_heaviest_answers_stand_first():
    votes = Votes(max_samples=16)
    for group, weight in ((0, 0.3), (0, 0.3), (1, 2.1), (2, 0.1)):
        votes.add(group, 10, weight)
    assert standing_of(votes) == Standing(1, 2, 4, 2.0, 0.25)


def test_tokens_are_the_query_s_own_drawn_towards_all_others():
    forecast = Forecast(FIXED, tokens=500.0)
    # 12 samples to come; the mean of 4 samples of 100 tokens and one of 500.
    assert forecast.remaining_tokens(votes_of("aaaa")) == pytest.approx(12 * 900 / 5)
    for _ in range(3):
        forecast.sample_ended(200)
    assert forecast.remaining_tokens(votes_of("aaaa")) == pytest.approx(12 * 600 / 5)


def test_a_fresh_query_is_foreseen_by_those_that_ended():
    forecast = Forecast(FIXED, tokens=100.0)
    assert forecast.remaining_tokens(votes_of("")) == pytest.approx(16 * 100)
    forecast.query_ended(votes_of("aaaa"))
    forecast.query_ended(votes_of("aa"))
    assert forecast.remaining_tokens(votes_of("")) == pytest.approx(3 * 100)
    assert forecast.remaining_tokens(votes_of("", max_samples=2)) == pytest.approx(2 * 100)


@given(st.text("abc-", max_size=16))
@settings(max_examples=60, deadline=None)
def test_any_votes_have_a_positive_forecast_within_the_budget(text):
    forecast = Forecast(DEFAULT, tokens=100.0)
    left = forecast.remaining_tokens(votes_of(text))
    assert left + 1e-9 >= 100
    assert left <= 100 * max(16 - len(text), 1) + 1e-9


def test_a_rule_without_a_hash_is_refused():
    class Listed(list):
        def decide(self, votes): ...

    with pytest.raises(TypeError, match="must be hashable"):
        Forecast(Listed())
