"""How far queries stray where some still run, and which ones are looked back on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.slo.strayed import EXPERIENCE, MOST, REMEMBERED, Curve, Strayed


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def curve(ended, running=()):
    return Curve(np.array(ended, float), np.array(running, float))


def test_without_running_queries_it_is_the_share_of_those_that_ended():
    found = curve([1, 2, 2, 4])
    assert [found.share(times) for times in (0.5, 1, 2, 3, 4)] == pytest.approx(
        [0, 0.25, 0.75, 0.75, 1]
    )
    assert [found.times(share) for share in (0.25, 0.5, 0.9)] == [1, 2, 4]


def test_a_running_query_has_strayed_at_least_as_far_as_it_has_come():
    # Freireich's remission times under 6-mercaptopurine; S(6) = 0.857, S(10) = 0.753, S(23) = 0.448.
    ended = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    running = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    found = curve(ended, running)
    assert 1 - found.share(6) == pytest.approx(0.857, abs=0.001)
    assert 1 - found.share(10) == pytest.approx(0.753, abs=0.001)
    assert 1 - found.share(23) == pytest.approx(0.448, abs=0.001)
    assert found.times(0.9) == 35  # not known: the most that was seen


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=40),
    st.lists(st.floats(0.01, 100), max_size=40),
)
def test_shares_grow_and_running_queries_only_make_them_smaller(ended, running):
    times = np.linspace(0, 101, 50)
    alone, beside = curve(ended), curve(ended, running)
    shares = [beside.share(each) for each in times]
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)
    late = curve(ended, [each + 101 for each in running])
    assert all(late.share(each) <= alone.share(each) + 1e-9 for each in times)


def strayed(*, longest=10.0):
    clock = Clock()
    return clock, Strayed(longest, clock)


def test_easy_queries_that_end_first_do_not_hide_the_hard_ones_that_still_run():
    clock, known = strayed()
    for number in range(60):
        known.begin(number, expected=1.0)
    for number in range(40):
        known.end(number, 0.5)
    assert known.curve().share(1.0) == 1.0  # so far
    clock.now = 30.0
    assert known.curve().share(1.0) == pytest.approx(40 / 60)
    assert known.in_time(10.0, known.curve()) == (40.0, 60)


def test_a_query_that_still_runs_may_be_in_time_if_others_like_it_were():
    clock, known = strayed()
    for number in range(40):
        known.begin(number, expected=1.0)
        known.end(number, 4.0 if number % 2 else 16.0)
    known.begin("runs", expected=1.0)
    clock.now = 2.0
    found, of = known.in_time(10.0, known.curve())
    assert of == 41
    assert found == pytest.approx(20 + 0.5, abs=0.02)
    clock.now = 9.0  # of those that came so far only the slow ones were left
    assert known.in_time(10.0, known.curve())[0] == pytest.approx(20, abs=0.02)


def test_until_some_have_ended_others_take_what_is_expected():
    _, known = strayed()
    assert known.curve().share(0.9) == 0.0
    assert known.curve().share(1.0) == 1.0
    for number in range(EXPERIENCE):
        assert not known.known
        known.begin(number, expected=1.0)
        known.end(number, 3.0)
    assert known.known
    assert known.curve().share(2.9) == 0.0


def test_the_last_ones_are_looked_back_on_and_all_of_a_busy_hour():
    clock, known = strayed(longest=10.0)
    for number in range(REMEMBERED + 50):
        clock.now = float(number)
        known.begin(number, expected=1.0)
    assert known.in_time(10.0, known.curve())[1] == REMEMBERED
    for number in range(MOST + 50):  # all at once
        known.begin(("busy", number), expected=1.0)
    assert known.in_time(10.0, known.curve())[1] == MOST


def test_one_that_is_left_or_unknown_teaches_nothing():
    _, known = strayed()
    known.begin("left", expected=1.0)
    known.drop("left")
    known.drop("left")
    known.end("unknown", 3.0)
    assert known.in_time(10.0, known.curve()) == (0.0, 0)
