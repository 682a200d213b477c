"""Self-consistency by hand: no engine, no clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.program import Generation, Progress, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.equivalence import AnswerGroups


class SameText:
    """Answers are the same if their texts are."""

    def same_as_any(self, new, known):
        return known.index(new) if new in known else None


def make(samples=4, seed=None, **more):
    return SelfConsistency(
        Task(
            "q",
            "what?",
            sampling=Sampling(seed=seed),
            extract=lambda text: extract(text, "boxed"),
            groups=AnswerGroups(SameText()),
        ),
        samples=samples,
        **more,
    )


def ended(request, answer, tokens=10, reason="stop"):
    text = "" if answer is None else f"so \\boxed{{{answer}}}"
    return Generation(request.id, text, tokens, finish_reason=reason)


def test_proposes_no_more_than_the_budget():
    program = make(samples=3)
    assert [r.index for r in program.propose(2)] == [0, 1]
    assert program.remaining() == 1
    assert [r.index for r in program.propose(5)] == [2]
    assert program.propose(1) == []
    assert program.votes().in_flight == 3


def test_majority_wins_and_rivals_are_listed():
    program = make()
    for request, answer in zip(program.propose(4), ["7", "8", "7", None], strict=True):
        program.receive(ended(request, answer))
    answer = program.answer()
    assert answer.value == "7"
    assert [(c.answer, c.votes) for c in answer.candidates] == [("7", 2), ("8", 1)]
    assert program.votes().n == 4
    assert program.votes().answered == 3
    assert program.certainty().evidence == 3


def test_a_tie_keeps_the_answer_that_got_there_first():
    program = make()
    for request, answer in zip(program.propose(4), ["8", "7", "7", "8"], strict=True):
        program.receive(ended(request, answer))
    assert program.answer().value == "7"


def test_cut_and_failed_samples_are_no_evidence():
    program = make(samples=4)
    first, second, third, fourth = program.propose(4)
    program.receive(ended(first, "1", reason="aborted"))
    program.receive(ended(second, "1", reason="error"))
    program.receive(ended(third, "2"))
    assert program.answer().value == "2"
    assert program.votes().n == 1
    assert program.votes().remaining == 1, "what failed is gone from the budget"
    program.receive(ended(fourth, "2"))
    assert program.votes().remaining == 0


def test_progress_is_not_a_vote():
    program = make()
    (request,) = program.propose(1)
    program.receive(Progress(request.id, "\\boxed{3}", 3))
    assert program.votes().n == 0
    assert program.answer().value is None


def test_each_sample_has_its_own_seed():
    assert [r.sampling.seed for r in make(seed=40).propose(3)] == [40, 41, 42]
    assert make().propose(1)[0].sampling.seed is None


def test_weights_decide_where_given():
    program = make(weigh=lambda sample: float(sample.tokens))
    for request, (answer, tokens) in zip(
        program.propose(3), [("1", 1), ("1", 1), ("2", 9)], strict=True
    ):
        program.receive(ended(request, answer, tokens))
    assert program.answer().value == "2"


def test_a_budget_below_one_is_refused():
    with pytest.raises(ValueError, match="samples must be 1 or more, not 0"):
        make(samples=0)


outcomes = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", None]),
        st.sampled_from(["stop", "length", "aborted", "error"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(outcomes, st.randoms(use_true_random=False))
def test_every_request_is_accounted_for_in_any_order(results, random):
    program = make(samples=len(results))
    requests = program.propose(len(results))
    order = list(range(len(requests)))
    random.shuffle(order)
    for place in order:
        answer, reason = results[place]
        program.receive(ended(requests[place], answer, reason=reason))
    votes = program.votes()
    finished = [answer for answer, reason in results if reason in ("stop", "length")]
    assert votes.in_flight == 0
    assert votes.n == len(finished)
    assert votes.answered == sum(answer is not None for answer in finished)
    assert votes.max_samples - votes.n == 0
    if finished and any(finished):
        most = max(finished.count(a) for a in finished if a is not None)
        assert program.answer().candidates[0].votes == most
