"""The example of the documentation, by hand: two samples, and a third only where they disagree."""

import runpy
from pathlib import Path

import pytest

from tests.algorithms.conftest import ended, fresh_groups

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_opinions.py"


@pytest.fixture(scope="module")
def two_opinions():
    return runpy.run_path(str(EXAMPLE))["TwoOpinions"]


@pytest.mark.parametrize(
    ("answers", "third"),
    [(("1", "1"), False), (("1", "2"), True), (("1", None), True), ((None, None), True)],
)
def test_a_third_sample_breaks_a_tie(two_opinions, answers, third):
    program = two_opinions("q", "?", fresh_groups())
    first, second = program.propose(9)
    assert program.propose(9) == [], "it waits for both"
    program.receive(ended(second, answers[1]))
    assert program.propose(9) == []
    program.receive(ended(first, answers[0]))
    assert bool(program.remaining()) is third
    if third:
        (last,) = program.propose(9)
        program.receive(ended(last, "1"))
        assert program.remaining() == 0
    assert program.answer().value == "1"


def test_a_sample_that_fails_is_not_waited_for(two_opinions):
    program = two_opinions("q", "?", fresh_groups())
    first, second = program.propose(2)
    program.receive(ended(first, finish_reason="error"))
    program.receive(ended(second, "1"))
    (third,) = program.propose(2)
    program.receive(ended(third, "1"))
    assert program.remaining() == 0
    assert program.propose(2) == []
