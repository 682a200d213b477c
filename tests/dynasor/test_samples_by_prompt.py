"""What a prompt says of the samples that its query takes, and how it is learnt."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certaindex.stopping import parse_rule
from certaindex.votes import Votes
from dynasor.ranking.length_prior import LengthPrior
from dynasor.ranking.online_ridge import REFIT, OnlineRidge
from dynasor.ranking.prompt_vector import VECTOR_SIZE, prompt_vector
from dynasor.ranking.ranked import Ranked
from dynasor.ranking.running_line import MEMORY, RunningLine
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.samples_by_prompt import SamplesByPrompt, slope_of

DEFAULT = parse_rule("default")
EASY, HARD = "Add the apples of basket {}.", "Prove the lemma on prime {} by induction."


def ranked(prompt):
    return Ranked(0.0, LengthPrior(5.0), prompt_vector(prompt))


def votes_of(text):
    votes = Votes(max_samples=16)
    for answer in text:
        votes.add(ord(answer) - ord("a"), 100)
    return votes


def serve(forecast, prompt, answers):
    """A query from its arrival to its end."""
    query = forecast.query(ranked(prompt))
    for n in range(len(answers)):
        query.remaining(votes_of(answers[:n]))
        query.sample_ended(100)
    query.ended(votes_of(answers))


def foreseen(forecast, prompt, answers=""):
    query = forecast.query(ranked(prompt))
    for _ in answers:
        query.sample_ended(100)
    return query.remaining(votes_of(answers)).tokens


def after_two_kinds(easy, hard, queries=60):
    forecast = Forecast(DEFAULT, tokens=100.0)
    for number in range(queries):
        serve(forecast, EASY.format(number), easy)
        serve(forecast, HARD.format(number), hard)
    return forecast


def test_prompts_of_a_kind_that_is_agreed_upon_late_are_foreseen_so():
    forecast = after_two_kinds(easy="aaa", hard="abacabacabaca")
    easy, hard = (foreseen(forecast, kind.format(1000), "a") for kind in (EASY, HARD))
    assert easy == pytest.approx(200, rel=0.35)  # the votes of both look alike yet
    assert hard == pytest.approx(1200, rel=0.35)


def test_no_query_is_put_off_for_its_prompt_before_a_sample_could_tell():
    forecast = after_two_kinds(easy="aaa", hard="abacabacabaca")
    easy, hard = (foreseen(forecast, kind.format(1000)) for kind in (EASY, HARD))
    assert easy == pytest.approx(hard, rel=0.01)


def test_votes_that_tell_all_leave_nothing_to_the_prompt():
    forecast = after_two_kinds(easy="abaaaa", hard="abbccddee")
    told = [foreseen(forecast, kind.format(1000), "abaa") for kind in (EASY, HARD)]
    assert told[1] == pytest.approx(told[0], rel=0.05)


def test_prompts_that_say_nothing_change_nothing():
    forecast, draw = Forecast(DEFAULT, tokens=100.0), random.Random(1)
    for number in range(300):
        prompt = draw.choice([EASY, HARD]).format(number)
        serve(forecast, prompt, draw.choice(["aaa", "abacabaca"]))
    told = [foreseen(forecast, kind.format(1000), "a") for kind in (EASY, HARD)]
    assert told[1] == pytest.approx(told[0], rel=0.1)


def test_a_prompt_like_no_other_is_foreseen_within_bounds():
    forecast = after_two_kinds(easy="aaa", hard="abacabacabaca")
    for odd in ("", "?" * 1_000_000, "\ud800 " * 500, "\n" * 5000):
        assert 100 * 0.9 <= foreseen(forecast, odd, "a") <= 16 * 100 * 1.1


def test_queries_without_a_prompt_go_by_their_votes():
    forecast = after_two_kinds(easy="aaa", hard="abacabacabaca")
    blind = forecast.query(Ranked(0.0, LengthPrior(5.0)))
    blind.sample_ended(100)
    assert 400 < blind.remaining(votes_of("a")).tokens < 1000


def test_a_query_that_was_not_stopped_by_its_rule_teaches_nothing_of_samples():
    forecast = Forecast(DEFAULT, tokens=100.0)
    before = foreseen(forecast, HARD, "a")
    for _ in range(80):
        query = forecast.query(ranked(HARD))
        query.remaining(votes_of("a"))
        query.ended(votes_of("abacabacabaca"), by_rule=False)
    assert foreseen(forecast, HARD, "a") == before


def test_online_ridge_is_ridge_regression_that_forgets():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(8 * REFIT, 5)).astype(np.float32)
    values = rows @ np.array([1.0, -2.0, 0.0, 3.0, 0.5]) + draw.normal(size=len(rows))
    ridge = OnlineRidge(5, penalty=2.0)
    for row, value in zip(rows, values, strict=True):
        ridge.learn(row, value)
    weights = (1 - 1 / 500) ** np.arange(len(rows))[::-1]
    whole = (rows.T * weights) @ rows + 2.0 * np.eye(5)
    expected = np.linalg.solve(whole, (rows.T * weights) @ values)
    assert [ridge.predict(one) for one in np.eye(5, dtype=np.float32)] == pytest.approx(expected)


def test_online_ridge_follows_what_changes():
    ridge, one = OnlineRidge(1), np.ones(1, np.float32)
    assert ridge.predict(one) == 0.0
    for value in (1.0, -1.0):
        for _ in range(2000):
            ridge.learn(one, value)
    assert ridge.predict(one) == pytest.approx(-1.0, abs=0.05)


def test_a_running_line_has_the_moments_of_its_pairs():
    draw = np.random.default_rng(0)
    x, noise = draw.normal(size=(2, MEMORY))
    y, line = 2 + 3 * x + noise, RunningLine()
    for pair in zip(x, y, strict=True):
        line.learn(*pair)
    slope, middle = np.polyfit(x, y, 1)
    assert line.both / line.x_var == pytest.approx(slope)
    assert line.y - slope * line.x == pytest.approx(middle)
    assert line.left(slope) == pytest.approx(np.var(y - slope * x - middle))


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), max_size=60))
def test_a_slope_is_drawn_towards_none(pairs):
    line = RunningLine()
    for pair in pairs:
        line.learn(*pair)
    slope = slope_of(line)
    assert slope >= 0
    if slope:
        assert slope <= line.both / line.x_var


def test_a_slope_that_may_well_be_none_is_not_followed():
    draw, followed = np.random.default_rng(0), 0
    for _ in range(200):
        line = RunningLine()
        for pair in draw.normal(size=(100, 2)):
            line.learn(*pair)
        followed += slope_of(line) > 0
    assert followed <= 20  # of 100 that rise by chance


def test_a_prompt_multiplies_only_so_much():
    learner = SamplesByPrompt()
    for foreseen in np.linspace(-1, 1, 100):
        learner.learn_rest(foreseen, 1, foreseen)
    assert learner.multiple(1e6, 1) == pytest.approx(np.exp(2))
    assert learner.multiple(-1e6, 1) == pytest.approx(np.exp(-2))


def test_a_slope_takes_queries_and_a_difference():
    line, learner = RunningLine(), SamplesByPrompt()
    for n in range(19):
        line.learn(n, n)
    assert slope_of(line) == 0.0
    line.learn(19, 19)
    assert slope_of(line) == pytest.approx(1.0)
    for _ in range(100):
        learner.learn_rest(0.0, 1, 1.0)  # all are foreseen alike
    assert learner.multiple(3.0, 1) == 1.0


@pytest.mark.parametrize("prompt", ["", " ", "a", "word " * 300_000, "\ud800", "日本語" * 4000])
def test_every_prompt_has_a_vector(prompt):
    vector = prompt_vector(prompt)
    assert vector.shape == (VECTOR_SIZE,)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()


def test_prompts_with_the_same_words_have_vectors_that_are_alike():
    one, other, odd = map(
        prompt_vector, (EASY.format(17), EASY.format(93), "Translate the letter into Dutch!")
    )
    assert np.array_equal(one, prompt_vector(EASY.format(17)))
    assert np.linalg.norm(one - other) < 0.6 * np.linalg.norm(one - odd)
