"""Under overload: bolder rungs first, then refusals, and never one for want of experience."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.slo.day_budget import DAY, DayBudget
from dynasor.slo.load_control import EXPERIENCE, LoadControl, Pace, Target
from dynasor.slo.rungs import LESS, Rung, ladder


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def served(inside, each=100.0, pace=100.0, queries=20):
    """A server that has long had so many queries inside, of so much work, at so many tokens a second."""
    clock = Clock()
    known = Pace(clock)
    for _ in range(inside):
        known.enter(each)
    for _ in range(queries):
        clock.now += each / pace
        known.leave(each, ended=True)
        known.enter(each)
    return known


def control(pace, seconds, works=(100.0, 50.0, 25.0), share=0.9):
    return LoadControl(works, [Target(share, seconds)], pace, "class all")


def test_the_pace_is_work_over_time_at_the_same_load():
    pace = served(inside=4)
    assert pace.seconds(100.0) == pytest.approx(
        5.0, rel=0.01
    )  # four inside and itself, one a second


def test_an_unknown_load_is_taken_to_be_served_in_proportion():
    pace = served(inside=1)
    for _ in range(7):
        pace.enter(100.0)  # eight inside, which were never seen to end
    assert pace.seconds(100.0) == pytest.approx(9 / 8, rel=0.05)
    assert Pace(Clock()).seconds(100.0) is None


def test_what_was_left_teaches_nothing():
    pace = served(inside=4)
    before = pace.seconds(100.0)
    pace.leave(100.0, ended=False)
    pace.enter(100.0)
    assert pace.seconds(100.0) == pytest.approx(before)


@pytest.mark.parametrize(
    ("seconds", "level"), [(11.0, 0), (8.0, 1), (6.0, 2)], ids=["calm", "busy", "busier"]
)
def test_the_more_of_the_allowed_time_is_used_the_bolder_is_the_rung(seconds, level):
    choice = control(served(inside=4), seconds).choose()
    assert (choice.level, choice.wait) == (level, None)


def test_a_query_that_would_be_late_on_any_rung_is_refused_with_the_time_to_wait():
    busy = control(served(inside=4), seconds=2.0)
    for _ in range(EXPERIENCE - 1):
        busy.ended(predicted=5.0, seconds=5.0)
    assert busy.choose().wait is None, "how far queries stray is not known yet"
    busy.ended(predicted=5.0, seconds=5.0)
    choice = busy.choose()
    assert choice.level == 2
    assert choice.wait == pytest.approx(4.25 - 2.0, rel=0.02)


def test_a_promise_that_an_empty_server_could_not_keep_refuses_nobody():
    assert control(served(inside=4), seconds=0.01).choose().wait is None
    assert control(Pace(Clock()), seconds=0.01).choose().wait is None


def test_nothing_is_traded_where_no_latency_was_promised():
    free = LoadControl((100.0, 50.0), [], served(inside=64), "class all")
    assert free.choose()[::2] == (0, None)
    assert free.attained(0) == 1.0


def test_it_learns_how_far_single_queries_stray():
    pace = served(inside=4)
    learned = control(pace, seconds=6.0)
    for _ in range(200):
        learned.ended(predicted=5.0, seconds=10.0)  # twice what is expected
    assert learned.choose().wait is not None
    assert learned.attained(0) == 0.0
    patient = control(pace, seconds=12.0)
    for number in range(200):  # one in ten strays, which the promise allows
        patient.ended(predicted=5.0, seconds=50.0 if number % 11 == 0 else 5.0)
    assert patient.choose().level == 0


def test_kinds_of_queries_are_told_apart_by_what_they_cost():
    pace = Pace(Clock())
    for _ in range(3):
        pace.learn("short", 10.0)
        pace.learn("long", 1000.0)
    assert pace.expected("short") == pytest.approx(10.0)
    assert pace.expected("new") == pytest.approx(505.0)
    for number in range(1000):
        pace.learn(f"odd {number}", 1.0)
    assert len(pace._kinds) <= 256


@given(st.lists(st.one_of(st.none(), st.floats(1, 1e5)), max_size=30))
def test_each_rung_of_a_ladder_has_clearly_less_work(works):
    base = Rung("never", 16, 1, 1000.0)
    rungs = ladder([base, *(Rung("default", 16, 1, work) for work in works)])
    assert rungs[0] is base
    assert len(rungs) <= 8
    for above, below in pairwise(rungs):
        assert below.work <= LESS * above.work


def test_tokens_of_a_day_come_back_at_midnight():
    clock = Clock()
    clock.now = 10 * DAY + 100
    budget = DayBudget(50, clock)
    budget.spend(49)
    assert budget.wait() is None
    budget.spend(1)
    assert budget.wait() == DAY - 100
    clock.now = 11 * DAY
    assert budget.wait() is None
    assert DayBudget(None, clock).wait() is None


def test_bolder_settings_do_not_make_a_query_wait_for_more_rounds():
    base, narrow, wide = (
        Rung("default", 16, 4, 800),
        Rung("esc:3", 16, 1, 500),
        Rung("x", 16, 4, 600),
    )
    assert ladder([base, narrow, wide]) == [base, wide]
