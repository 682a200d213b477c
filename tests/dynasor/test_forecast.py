"""What is foreseen of a query's remaining work."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.stopping import parse_rule
from certaindex.votes import Votes
from dynasor.ranking.length_prior import LengthPrior
from dynasor.ranking.ranked import Ranked
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.further_samples import Standing, samples_to_come, standing_of

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
    short, long = forecast.query(), forecast.query()
    none = short.remaining(votes_of("")).tokens
    for _ in range(4):
        short.sample_ended(100)
    assert 100 * 12 < short.remaining(votes_of("aaaa")).tokens < 130 * 12
    for _ in range(4):
        long.sample_ended(2000)
    assert 1700 * 12 < long.remaining(votes_of("aaaa")).tokens < 2300 * 12
    assert none > short.remaining(votes_of("")).tokens  # the same, but for what was learnt


def test_a_fresh_query_is_foreseen_by_those_that_ended():
    forecast = Forecast(DEFAULT, tokens=100.0)
    before = forecast.query().remaining(votes_of("")).tokens
    for _ in range(200):
        query = forecast.query()
        query.remaining(votes_of(""))
        query.sample_ended(200)
        query.sample_ended(200)
        query.ended(votes_of("aa", tokens=200))
    after = forecast.query().remaining(votes_of(""))
    assert after.tokens == pytest.approx(2 * 200, rel=0.2)
    assert before != after.tokens
    assert forecast.query().remaining(votes_of("", max_samples=1)).tokens < after.tokens


def test_what_queries_took_after_the_same_votes_is_learnt():
    forecast = Forecast(DEFAULT, tokens=100.0)
    played = forecast.query().remaining(votes_of("ab")).tokens
    for _ in range(50):
        query = forecast.query()
        query.remaining(votes_of("ab"))
        query.ended(votes_of("ab" + "a" * 14))
    assert forecast.query().remaining(votes_of("ab")).tokens > 1.2 * played


def test_a_rank_says_what_to_expect_and_is_set_right_as_a_whole():
    forecast = Forecast(FIXED, tokens=500.0)
    short, long = (Ranked(0.0, LengthPrior(log(tokens), 0.3)) for tokens in (100, 1000))
    first = forecast.query(short).remaining(votes_of("")).tokens
    assert forecast.query(long).remaining(votes_of("")).tokens == pytest.approx(10 * first)
    for ranked, tokens in [(short, 200), (long, 2000)] * 50:  # twice as long as the ranks said
        query = forecast.query(ranked)
        query.sample_ended(tokens)
        query.ended(votes_of(""))
    assert forecast.query(short).remaining(votes_of("")).tokens == pytest.approx(2 * first, rel=0.1)


def test_a_sample_that_ran_on_makes_the_query_longer():
    query = Forecast(FIXED, tokens=100.0).query()
    assert query.remaining(votes_of("a"), [2000]).tokens > 2 * query.remaining(votes_of("a")).tokens


def test_a_limit_bounds_what_is_foreseen():
    query = Forecast(FIXED, tokens=1000.0, limit=300).query()
    assert query.remaining(votes_of("")).tokens <= 16 * 300


@given(st.text("abc-", max_size=16), st.lists(st.integers(0, 5000), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_votes_have_a_forecast(text, running):
    query = Forecast(DEFAULT, tokens=100.0, limit=5000).query()
    for _ in text:
        query.sample_ended(100)
    left = query.remaining(votes_of(text), running)
    assert 0 <= left.low <= left.high
    assert 0 <= left.tokens <= 5000 * 16


def test_a_rule_without_a_hash_is_refused():
    class Listed(list):
        def decide(self, votes): ...

    with pytest.raises(TypeError, match="must be hashable"):
        Forecast(Listed())
