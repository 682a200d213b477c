"""How many samples of a query run at once."""

import pytest

from algorithms.program import Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.groups import AnswerGroups, ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import LiveQuery
from dynasor.forecast_wave import ForecastWave, fewest
from dynasor.scheduling.forecast import Standing, samples_to_come

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
