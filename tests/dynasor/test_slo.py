"""Attainment, and how far it holds; the figures are worked out by hand."""

import pytest

from dynasor.bench.slo import (
    Crossing,
    Window,
    attainment,
    counted_window,
    highest_rate,
    latencies_of,
    quantile,
    rate_interval,
    share_interval,
    slowdown,
    tightest_scale,
)
from dynasor.bench.workload import Arrival, Completion


def completion(latency, group="a", reason="certain", time=0.0):
    arrival = Arrival("x", time, "q", "query", group, None)
    return Completion(arrival, latency, None, True, 10, 2, reason)


def test_slowdown_is_by_class():
    unloaded = {"a": 2.0, "b": 0.5}
    assert slowdown(completion(3.0), unloaded) == 1.5
    assert slowdown(completion(3.0, "b"), unloaded) == 6.0


@pytest.mark.parametrize("reason", ["failed", "unfinished", "deadline"])
def test_neither_no_answer_nor_one_cut_short_is_in_time(reason):
    slow = slowdown(completion(0.1, reason=reason), {"a": 1.0})
    assert attainment([slow], 1e9) == 0


def test_attainment_counts_what_is_just_in_time():
    assert attainment([1.0, 2.0, 5.0, 5.1], 5.0) == 0.75
    assert attainment([], 5.0) is None


def test_quantiles_are_latencies_that_occurred():
    values = [float(x) for x in range(10, 0, -1)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.9, 0.91, 1.0)] == [1, 5, 9, 10, 10]
    assert quantile([7.0], 0.99) == 7.0


def test_latencies_of_nothing_are_not_known():
    assert latencies_of([]).p90 is None
    assert latencies_of([completion(1.0), completion(3.0)]).mean == 2.0
    assert latencies_of([completion(1.0), completion(3.0)]).longest == 3.0


def test_the_highest_rate_lies_on_the_line_between_two_points():
    # From 0.95 at 2/s down to 0.75 at 4/s: 0.9 is a quarter of the way.
    assert highest_rate({1: 1.0, 4: 0.75, 2: 0.95}) == Crossing(pytest.approx(2.5))


def test_a_rate_that_holds_again_by_chance_does_not_count():
    assert highest_rate({1: 1.0, 2: 0.8, 3: 1.0}) == Crossing(1.5)


def test_no_rate_that_holds_gives_none():
    assert highest_rate({1: 0.89, 2: 0.5}) == Crossing(None)
    assert highest_rate({}) == Crossing(None)


def test_a_rate_that_never_fails_is_a_bound():
    assert highest_rate({1: 1.0, 2: 0.9}) == Crossing(2, bound=True)


def test_the_tightest_scale_is_looked_for_from_the_loosest_down():
    assert tightest_scale({5: 1.0, 2: 0.94, 1: 0.84}) == Crossing(pytest.approx(1.6))
    assert tightest_scale({5: 0.8, 2: 1.0}) == Crossing(None)
    assert tightest_scale({5: 1.0, 2: 0.9}) == Crossing(2, bound=True)


def test_what_counts_is_between_warm_up_and_cool_down():
    window = counted_window(20, 4, 2)
    assert window == Window(4, 18)
    assert [window.holds(time) for time in (3.99, 4, 17.99, 18)] == [False, True, True, False]


@pytest.mark.parametrize("cut", [(5, 5), (-1, 2), (2, -1), (11, 0)])
def test_a_run_of_which_nothing_is_left_is_refused(cut):
    with pytest.raises(ValueError, match="leave nothing of 10 s"):
        counted_window(10, *cut)


def test_intervals_hold_the_figure_and_shrink_with_the_queries():
    few = {1: [True] * 20, 2: [True] * 14 + [False] * 6}
    many = {rate: met * 50 for rate, met in few.items()}
    point = highest_rate({1: 1.0, 2: 0.7}).value
    narrow, wide = rate_interval(many), rate_interval(few)
    assert narrow[0] < point < narrow[1]
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 2
    low, high = share_interval([True] * 90 + [False] * 10)
    # The normal approximation: 0.9 +- 1.96 * sqrt(0.9 * 0.1 / 100).
    assert low == pytest.approx(0.841, abs=0.02)
    assert high == pytest.approx(0.959, abs=0.02)


def test_no_interval_without_a_rate_that_holds():
    assert rate_interval({1: [False] * 30}) is None
    assert share_interval([]) is None
