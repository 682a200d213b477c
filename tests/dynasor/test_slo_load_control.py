"""Under overload: bolder rungs first, then refusals, and never one for want of experience."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.slo.day_budget import DAY, DayBudget
from dynasor.slo.load_control import LoadControl, Pace, Target
from dynasor.slo.rungs import LESS, Rung, ladder
from dynasor.slo.strayed import EXPERIENCE


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def served(*loads, each=100.0, pace=100.0, queries=20, clock=None):
    """A server that has long had so many queries inside, one load after the other.

    Each query is of so much work, and so many tokens a second leave.
    """
    clock = clock or Clock()
    known = Pace(clock)
    for load in loads:
        while known.inside < load:
            known.enter(each)
        for _ in range(queries):
            clock.now += each / pace
            known.leave(each, ended=True)
            known.enter(each)
    return known


def control(pace, seconds, works=(100.0, 50.0, 25.0), share=0.9):
    return LoadControl(works, [Target(share, seconds)], pace, "class all")


def teach(known, number, *, predicted, seconds):
    """A query that was expected to take so long has taken so long."""
    known.begun(number, predicted)
    known.ended(number, seconds)


def test_the_pace_is_work_over_time_at_the_same_load():
    pace = served(4)
    assert pace.seconds(100.0) == pytest.approx(
        5.0, rel=0.01
    )  # four inside and itself, one a second


def test_an_unknown_load_is_taken_to_be_served_in_proportion():
    pace = served(1)
    for _ in range(7):
        pace.enter(100.0)  # eight inside, which were never seen to end
    assert pace.seconds(100.0) == pytest.approx(9 / 8, rel=0.05)
    assert Pace(Clock()).seconds(100.0) is None


def test_what_was_left_teaches_nothing():
    pace = served(4)
    before = pace.seconds(100.0)
    pace.leave(100.0, ended=False)
    pace.enter(100.0)
    assert pace.seconds(100.0) == pytest.approx(before)


@pytest.mark.parametrize(
    ("seconds", "level"), [(11.0, 0), (8.0, 1), (6.0, 2)], ids=["calm", "busy", "busier"]
)
def test_the_more_of_the_allowed_time_is_used_the_bolder_is_the_rung(seconds, level):
    choice = control(served(4), seconds).choose()
    assert (choice.level, choice.wait) == (level, None)


def test_a_query_that_would_be_late_on_any_rung_is_refused_with_the_time_to_wait():
    busy = control(served(4), seconds=2.0)
    for number in range(EXPERIENCE - 1):
        teach(busy, number, predicted=5.0, seconds=5.0)
    assert busy.choose().wait is None, "how far queries stray is not known yet"
    teach(busy, "last", predicted=5.0, seconds=5.0)
    choice = busy.choose()
    assert choice.level == 2
    assert choice.wait == pytest.approx(4.25 - 2.0, rel=0.02)


def test_a_promise_that_an_empty_server_could_not_keep_refuses_nobody():
    assert control(served(4), seconds=0.01).choose().wait is None
    assert control(Pace(Clock()), seconds=0.01).choose().wait is None


def test_nothing_is_traded_where_no_latency_was_promised():
    free = LoadControl((100.0, 50.0), [], served(64), "class all")
    assert free.choose()[::2] == (0, None)
    assert free.attained(0) == 1.0


def test_it_learns_how_far_single_queries_stray():
    pace = served(4)
    learned = control(pace, seconds=6.0)
    for number in range(200):
        teach(learned, number, predicted=5.0, seconds=10.0)  # twice what is expected
    assert learned.choose().wait is not None
    assert learned.attained(0) == 0.0
    patient = control(pace, seconds=12.0)
    for number in range(200):  # one in ten strays, which the promise allows
        teach(patient, number, predicted=5.0, seconds=50.0 if number % 11 == 0 else 5.0)
    assert patient.choose().level == 0


def test_one_that_will_be_late_is_served_while_the_others_leave_room_for_it():
    busy = control(served(1, 8), seconds=6.0, works=(100.0,))  # nine seconds are expected
    for number in range(95):
        teach(busy, number, predicted=5.0, seconds=5.0)
    for late in range(10):
        choice = busy.choose()
        assert choice.wait is None
        busy.begun(f"late {late}", choice.predicted)
    assert busy.choose().wait is not None  # 95 of 106 would be less than nine in ten
    for number in range(9):
        teach(busy, f"more {number}", predicted=5.0, seconds=5.0)
    assert busy.choose().wait is None


def test_queries_that_still_run_after_the_promised_time_are_late():
    clock = Clock()
    busy = control(served(1, 24, clock=clock), seconds=30.0, works=(100.0,))
    for number in range(100):
        busy.begun(number, 5.0)
        if number < 80:
            busy.ended(number, 1.0)
    assert busy.choose().wait is None
    clock.now += 60.0  # nothing has ended since
    assert busy.choose().wait is not None


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
