"""How many samples of a query run at once."""

import pytest

from algorithms.program import Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.groups import AnswerGroups, ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import LiveQuery, PerQuery
from dynasor.forecast_wave import ForecastWave, fewest
from dynasor.room import Room
from dynasor.scheduling.further_samples import Standing, samples_to_come

RULE = parse_rule("certaindex:0.9,min=3")


def query(name="q", samples=16):
    program = SelfConsistency(
        Task(
            name,
            "?",
            sampling=Sampling(),
            extract=lambda text: text,
            groups=AnswerGroups(ExactEquivalence()),
        ),
        samples=samples,
    )
    return LiveQuery(program)


def granted(allocator, asked):
    allocator.review(asked)
    return sum(grant.requests for grant in allocator.grants() if grant.query is asked)


def answer(asked, *answers):
    for text in answers:
        asked.program.votes().add("ab".index(text), 10)


@pytest.mark.parametrize(("rule", "least"), [("certaindex:0.9,min=3", 3), ("fixed:16", 16)])
def test_a_query_first_gets_what_its_rule_asks_for_at_least(rule, least):
    allocator, asked = ForecastWave(parse_rule(rule)), query()
    allocator.admit(asked)
    assert fewest(parse_rule(rule), 16) == least
    assert granted(allocator, asked) == least


def test_then_it_gets_what_the_rule_is_expected_to_ask_for():
    allocator, asked = ForecastWave(RULE), query()
    allocator.admit(asked)
    answer(asked, "a", "a", "b")
    expected = samples_to_come(RULE, Standing(2, 1, 3), 16)
    assert expected > 4, "two answers differ: it will take a while"
    assert expected <= granted(allocator, asked) < expected + 1


def test_what_is_in_flight_counts():
    allocator, asked = ForecastWave(RULE), query()
    allocator.admit(asked)
    asked.in_flight = {"q#0", "q#1"}
    assert granted(allocator, asked) == 1
    asked.in_flight = {"q#0", "q#1", "q#2"}
    assert granted(allocator, asked) == 0


def start(asked, allocator):
    """Grant it what it may have, and start that."""
    allocator.review(asked)
    for grant in allocator.grants():
        grant.query.in_flight.update(r.id for r in grant.query.program.propose(grant.requests))
    return len(asked.in_flight)


def test_an_engine_with_room_is_filled_and_then_no_more_than_that():
    room = Room(20)
    allocator, first, second, third = (
        ForecastWave(RULE, room=room),
        query("a"),
        query("b"),
        query("c"),
    )
    assert start(first, allocator) == 16, "all samples of the budget, for there is room"
    assert room.spare == 4
    assert start(second, allocator) == 4, "the room that is left"
    assert room.spare == 0
    assert start(third, allocator) == 3, "what the rule asks for at least: no room for more"


def test_room_that_a_stopped_query_leaves_is_given_on():
    room = Room(20)
    allocator, first, second = ForecastWave(RULE, room=room), query("a"), query("b")
    start(first, allocator)
    start(second, allocator)
    first.stopping = True
    allocator.release(first)
    assert room.spare == 16
    assert start(second, allocator) == 16


def test_allocators_share_the_room_of_an_engine():
    room = Room(10)
    first, second = query("a", samples=8), query("b", samples=8)
    assert start(first, PerQuery(RULE, 2, room=room)) == 8
    assert start(second, PerQuery(RULE, 2, room=room)) == 2, "its wave: two places are left"
    assert room.spare == 0


def test_work_that_follows_is_counted_as_in_flight():
    room = Room(4)
    allocator, asked = PerQuery(RULE, 2, room=room), query("a")
    asked.in_flight, asked.following = {"x", "y"}, {"y"}
    assert granted(allocator, asked) == 2
