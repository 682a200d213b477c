"""Hints from anybody's client: what is malformed is not known, and never an error."""

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.scheduling.gang import Gang, Hints, read_hints, read_id
from dynasor.scheduling.policies import POLICIES, Moment
from dynasor.scheduling.queue import GangQueue

NAMES = ["gang", "gang_tokens", "gang_rank", "gang_certainty", "gang_deadline", "gang_weight"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ODD = JSON | st.sampled_from([10**400, -(10**400), "x" * 1_000_000, "\ud800", b"x", object(), 1j])


@given(st.dictionaries(st.sampled_from(NAMES), ODD) | ODD)
def test_nothing_malformed_gets_through(arguments):
    gang, hints = read_hints(arguments)
    assert gang is None or (isinstance(gang, str) and 1 <= len(gang) <= 256)
    for value in hints.as_arguments().values():
        assert isinstance(value, float)
        assert isfinite(value)
    assert hints.certainty is None or 0 <= hints.certainty <= 1
    assert hints.tokens is None or hints.tokens >= 0
    for policy in POLICIES.values():
        queue = GangQueue(policy(), lambda: 0.0)
        queue.add("request", gang, "request", hints)
        assert queue.take() == "request"


BAD = [None, True, False, "7", [7], {"x": 7}, float("nan"), float("inf"), -float("inf"), 10**400]


@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:10])
@pytest.mark.parametrize("name", NAMES[1:])
def test_a_number_that_is_none_is_not_known(name, value):
    good = {"gang": "q", **dict.fromkeys(NAMES[1:], 1)}
    gang, hints = read_hints(good | {name: value})
    assert gang == "q"
    assert set(hints.as_arguments()) == set(good) - {name, "gang"}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("q", "q"),
        (7, "7"),
        (-1, "-1"),
        ("x" * 256, "x" * 256),
        (10**255, "1" + "0" * 255),
        ("x" * 257, None),
        ("x" * 1_000_000, None),
        (-(10**255), None),
        (10**5000, None),
        ("", None),
        (True, None),
        (1.5, None),
        (["q"], None),
        (None, None),
    ],
    ids=lambda value: repr(value)[:10] if not isinstance(value, int) else "int",
)
def test_an_id_is_a_short_text_or_a_number(value, name):
    assert read_id(value) == name


@pytest.mark.parametrize("arguments", [None, {}, [], "gang", 7, [("gang", "q")]])
def test_arguments_that_are_no_mapping_say_nothing(arguments):
    assert read_hints(arguments) == (None, Hints())


@given(
    st.builds(
        Hints,
        st.none() | st.floats(0, 1e12),
        st.none() | st.floats(-1e12, 1e12),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(-1e9, 1e9),
        st.none() | st.floats(1e-12, 1e12),
    )
)
def test_what_is_written_is_read(hints):
    assert read_hints({"gang": "q", **hints.as_arguments()}) == ("q", hints)


def test_a_hint_changes_only_what_it_says():
    gang = Gang("q", arrival=0.0, attained=40)
    gang.take(Hints(tokens=100, rank=2, certainty=0.5, deadline=10), now=5.0)
    gang.take(Hints(certainty=0.75), now=9.0)
    assert (gang.tokens, gang.rank, gang.certainty, gang.deadline) == (100, 2, 0.75, 15.0)
    assert gang.attained_then == 40


def test_remaining_tokens_go_down_by_what_was_served_since_the_hint():
    gang = Gang("q", arrival=0.0, waiting=2, running=4, attained=100)
    assert gang.remaining(typical=50) == 50 * 2 + 25 * 4
    gang.take(Hints(tokens=300), now=0.0)
    assert gang.remaining(typical=50) == 300
    gang.attained += 120
    assert gang.remaining(typical=50) == 180
    gang.attained += 500  # more than was foreseen
    assert gang.remaining(typical=50) == 20


@pytest.mark.parametrize("policy", ["gang-srpt", "deadline", "feasible-srpt"])
def test_expected_work_counts_by_weight_and_what_was_served_does_not(policy):
    queue = GangQueue(POLICIES[policy](), lambda: 0.0)
    queue.add("usual", "usual", "usual", Hints(tokens=300))
    queue.add("light", "light", "light", Hints(tokens=300, weight=0.5))
    queue.add("heavy", "heavy", "heavy", Hints(tokens=900, weight=4.0))
    assert list(queue) == ["heavy", "usual", "light"]
    queue.hint("heavy", Hints(tokens=2000))  # the weight stays
    assert list(queue) == ["usual", "heavy", "light"]
    gang = Gang("q", arrival=0.0, waiting=1, tokens=400, weight=4.0)
    assert gang.work(typical=50) == 100
    gang.attained = 200
    assert (gang.work(typical=50), gang.remaining(typical=50)) == (50, 200)


def test_a_gang_without_hints_is_placed_by_every_policy():
    for policy in POLICIES.values():
        place = policy().place(Gang("q", arrival=1.0, waiting=1), Moment(2.0, 100.0, 0.01))
        assert all(isfinite(part) for part in place.key)
