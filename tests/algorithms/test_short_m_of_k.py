"""Short-m-of-k by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms.program import Sampling
from algorithms.short_m_of_k import ShortMOfK
from algorithms.task import Task
from tests.algorithms.conftest import boxed, ended, fresh_groups


def make(first=2, samples=4):
    return ShortMOfK(
        Task("q", "what?", sampling=Sampling(), extract=boxed, groups=fresh_groups()),
        first=first,
        samples=samples,
    )


def test_the_first_that_finish_answer_and_the_others_are_cut_once():
    program = make()
    a, b, c, d = program.propose(4)
    program.receive(ended(c, "7"))
    assert program.cancelled() == []
    program.receive(ended(a, "7"))
    assert program.cancelled() == [b.id, d.id]
    assert program.cancelled() == []
    program.receive(ended(b, "9", finish_reason="aborted"))
    program.receive(ended(d, "9"))
    assert program.answer().value == "7"
    assert (program.votes().n, program.votes().in_flight, program.remaining()) == (2, 0, 0)


def test_no_more_starts_once_enough_have_finished():
    program = make(first=1, samples=3)
    (request,) = program.propose(1)
    program.receive(ended(request, "1"))
    assert program.propose(5) == []
    assert program.remaining() == 0


def test_a_tie_is_won_by_the_shorter():
    program = make(first=2, samples=2)
    a, b = program.propose(2)
    program.receive(ended(b, "short"))
    program.receive(ended(a, "long"))
    assert program.answer().value == "short"


def test_a_failed_sample_is_replaced_by_the_next_that_finishes():
    program = make(first=2, samples=3)
    a, b, c = program.propose(3)
    program.receive(ended(a, finish_reason="error"))
    program.receive(ended(b, "1"))
    assert program.cancelled() == []
    program.receive(ended(c, "1"))
    assert program.votes().remaining == 0


def test_more_answers_than_samples_are_refused():
    with pytest.raises(ValueError, match="between 1 and samples = 4, not 5"):
        make(first=5)


@given(
    st.permutations(range(6)),
    st.integers(1, 6),
    st.lists(st.sampled_from(["stop", "length", "error", "aborted"]), min_size=6, max_size=6),
)
def test_every_request_is_accounted_for_in_any_order(order, first, reasons):
    program = make(first=first, samples=6)
    requests = program.propose(6)
    for place in order:
        program.receive(ended(requests[place], "1", finish_reason=reasons[place]))
    finished = sum(reasons[p] in ("stop", "length") for p in range(6))
    assert program.votes().n == min(first, finished)
    assert program.votes().in_flight == 0
    assert program.votes().remaining == 0
    assert program.remaining() == 0
