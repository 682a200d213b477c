"""Plain requests, by hand and through odd orders."""

import pytest

from algorithms.chat import Chat
from algorithms.program import Generation, Progress, Sampling


def chat(**more):
    return Chat("q", "hello", sampling=more.pop("sampling", Sampling()), **more)


def ended(request, text="hi", reason="stop"):
    return Generation(request.id, text, len(text), finish_reason=reason)


def test_one_answer():
    program = chat()
    (request,) = program.propose(5)
    assert program.propose(5) == []
    assert (program.remaining(), program.votes().in_flight) == (0, 1)
    program.receive(Progress(request.id, "h", 1))
    assert program.choices[0].text == "h"
    assert program.votes().n == 0
    program.receive(ended(request))
    assert program.choices[0].text == "hi"
    assert program.answer().candidates[0].text == "hi"
    assert (program.votes().n, program.votes().in_flight, program.votes().answered) == (1, 0, 0)


def test_answers_stand_where_they_were_asked_in_whatever_order_they_end():
    program = chat(choices=3, sampling=Sampling(seed=7))
    first, second = program.propose(2)
    (third,) = program.propose(9)
    assert [request.sampling.seed for request in (first, second, third)] == [7, 8, 9]
    program.receive(ended(third, "c"))
    program.receive(ended(first, "a"))
    assert [choice and choice.text for choice in program.choices] == ["a", None, "c"]
    program.receive(ended(second, "b", reason="error"))
    assert program.votes().max_samples == 2
    assert program.votes().n == 2
    assert program.cancelled() == []
    assert program.certainty().evidence == 0


def test_no_answer_cannot_be_asked_for():
    with pytest.raises(ValueError, match="choices"):
        chat(choices=0)
