"""The queue of requests by predicted length: it loses no work, knows its limits, and starves nobody."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor.errors import DataError
from dynasor.ranking.queue_simulation import (
    FCFS,
    ORACLE,
    Traffic,
    compare_orders,
    latency_ratios,
    serve,
    share_of_bound,
)
from dynasor.scheduling.aging import Aging

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=40)


def vector(values):
    return np.array(values, dtype=float)


def test_three_requests_by_hand():
    arrivals, tokens = vector([0, 1, 2]), vector([10, 5, 2])
    first_come = serve(arrivals, tokens)
    assert first_come.latency.tolist() == [10, 14, 15]
    by_length = serve(arrivals, tokens, tokens)
    assert by_length.latency.tolist() == [10, 16, 10]  # the first runs on, nobody else was there
    assert by_length.place.tolist() == [0, 2, 1]
    assert serve(arrivals, tokens, tokens, slots=3).wait.tolist() == [0, 0, 0]


def test_the_slots_stand_empty_until_somebody_comes():
    served = serve(vector([5, 100]), vector([3, 4]), vector([1, 0]))
    assert served.wait.tolist() == [0, 0]
    assert served.latency.tolist() == [3, 4]


@given(lengths, st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_no_slot_is_idle_while_somebody_waits(tokens, slots, random):
    gaps = [random.choice([0, 1, 50, 200]) for _ in tokens]
    arrivals, long = vector(gaps).cumsum(), vector(tokens)
    ranks = vector([random.random() for _ in tokens])
    served = serve(arrivals, long, ranks, slots=slots, aging=Aging(100, 3))
    begun, ended = arrivals + served.wait, arrivals + served.latency
    assert (served.wait >= 0).all()
    assert sorted(served.place.tolist()) == list(range(len(tokens)))
    for start, came in zip(begun, arrivals, strict=True):
        assert ((begun <= start) & (ended > start)).sum() <= slots
        if start > came:  # who waited began when somebody else ended, and all slots were in use
            assert start in ended
            just_before = start - 0.5
            assert ((begun < just_before) & (ended > just_before)).sum() == slots


@given(lengths, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_on_a_burst_nothing_beats_the_oracle(tokens, random):
    long = vector(tokens)
    burst = np.zeros(len(tokens))
    any_order = vector([random.random() for _ in tokens])
    best = serve(burst, long, long).latency.sum()
    assert best <= serve(burst, long).latency.sum()
    assert best <= serve(burst, long, any_order).latency.sum()
    assert best == (np.sort(long) * np.arange(len(tokens), 0, -1)).sum()


@given(lengths, st.integers(1, 3), st.integers(1, 4), st.integers(0, 400), st.randoms())
@settings(max_examples=100, deadline=None)
def test_nobody_waits_longer_than_the_bound(tokens, slots, turns, patience, random):
    arrivals = vector([random.choice([0, 0, 5, 100]) for _ in tokens]).cumsum()
    aging = Aging(patience, turns)
    served = serve(arrivals, vector(tokens), vector(tokens), slots=slots, aging=aging)
    assert share_of_bound(served, arrivals, aging) <= 1


def test_without_the_guard_the_long_one_breaks_that_bound():
    tokens = vector([50] + [5] * 400)
    arrivals = vector([0, 0, *(4 * step for step in range(399))])
    aging = Aging(100, 4)
    starved = serve(arrivals, tokens, tokens)
    guarded = serve(arrivals, tokens, tokens, aging=aging)
    assert starved.place[0] == 400
    assert share_of_bound(starved, arrivals, aging) > 1
    assert guarded.place[0] < 100


def test_ratios_know_a_perfect_an_empty_and_a_reversed_order():
    tokens = np.random.default_rng(0).lognormal(5, 1, 300)
    perfect, empty, reverse = (
        latency_ratios(scores, tokens, load=0.8) for scores in (tokens, 0 * tokens, -tokens)
    )
    assert perfect[0] > 1.2
    assert perfect[1] == 1
    assert empty[0] == 1  # equal ranks go by arrival
    assert empty[1] == pytest.approx(perfect[0])
    assert reverse[0] < 1


def test_orders_meet_the_same_requests():
    tokens = np.random.default_rng(0).lognormal(5, 1, 100)
    traffic = Traffic(None, slots=4, requests=200)
    found = compare_orders({"same": tokens, "none": 0 * tokens}, tokens, traffic, repeats=4)
    assert found.results["same"].mean.tolist() == found.results[ORACLE].mean.tolist()
    assert found.results["none"].mean.tolist() == found.results[FCFS].mean.tolist()
    assert found.share_of_gain("same")[0] == 1
    assert found.share_of_gain("none")[0] == 0
    again = compare_orders({}, tokens, traffic, repeats=4)
    assert again.results[FCFS].p99.tolist() == found.results[FCFS].p99.tolist()


def test_lengths_that_are_all_equal_leave_nothing_to_gain():
    found = compare_orders({"any": [1, 2]}, [7, 7], Traffic(requests=50), repeats=2)
    value, interval = found.share_of_gain("any")
    assert np.isnan([value, *interval]).all()


@pytest.mark.parametrize(
    ("scores", "tokens", "message"),
    [
        ([1, float("nan"), 2], [1, 2, 3], r"predicted: number 1 of 3 is nan"),
        ([1, float("inf"), float("inf")], [1, 2, 3], r"is inf, and 2 in all"),
        ([1, 2], [1, 2, 3], r"2 scores for 3 requests"),
        ([1, 2], [1, 0], r"more than 0 output tokens"),
        ([], [], r"a queue needs requests"),
        ([[1, 2]], [1, 2], r"one number a request"),
    ],
)
def test_what_is_no_order_is_one_clear_error(scores, tokens, message):
    with pytest.raises(DataError, match=message):
        latency_ratios(scores, tokens)


@pytest.mark.parametrize("load", [0, -1, float("nan"), float("inf")])
def test_a_load_is_above_zero(load):
    with pytest.raises(ValueError, match="load must be above 0"):
        Traffic(load)
