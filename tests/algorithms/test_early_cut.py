"""Samples that have become improbable, by hand: no engine, no clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.program import Generation, Progress, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.early_cut import EarlyCut
from certaindex.groups import AnswerGroups, ExactEquivalence

SURE, LOST = [-0.01] * 12, [-0.01] * 2 + [-9.0] * 10
CUT = EarlyCut(floor=-1.0, every=4)


def make(samples=4, cut=CUT):
    return SelfConsistency(
        Task(
            "q",
            "what?",
            sampling=Sampling(logprobs=True),
            extract=lambda text: text or None,
            groups=AnswerGroups(ExactEquivalence()),
        ),
        samples=samples,
        cut=cut,
    )


def so_far(request, logprobs, tokens):
    return Progress(request.id, "", tokens, logprobs=logprobs[:tokens])


def ended(request, answer, logprobs=SURE, reason="stop"):
    return Generation(
        request.id, answer or "", len(logprobs), finish_reason=reason, logprobs=logprobs
    )


def test_progress_is_asked_for_as_often_as_it_is_looked_at():
    assert make().propose(1)[0].report_every == 4
    assert make(cut=None).propose(1)[0].report_every is None


def test_a_lost_sample_is_named_once_and_counts_as_one_without_a_vote():
    program = make()
    first, second, third, _ = program.propose(4)
    program.receive(ended(first, "7"))
    program.receive(so_far(second, LOST, 4))
    program.receive(so_far(third, SURE, 4))
    assert program.cancelled() == [second.id]
    program.receive(so_far(second, LOST, 8))
    assert program.cancelled() == []
    program.receive(ended(second, None, LOST[:9], reason="aborted"))
    votes = program.votes()
    assert (votes.n, votes.answered, votes.max_samples, votes.in_flight) == (2, 1, 4, 2)
    assert votes.total_tokens == 12 + 9


def test_what_ended_before_it_could_be_cut_does_not_vote_either():
    program = make()
    first, second, third, fourth = program.propose(4)
    program.receive(ended(first, "7"))
    program.receive(ended(second, "8", LOST))
    program.receive(so_far(third, LOST, 8))
    program.receive(ended(third, "8", LOST))
    assert program.answer().value == "7"
    assert (program.votes().n, program.votes().answered) == (3, 1)
    program.receive(ended(fourth, "8", LOST[:4]))
    assert program.votes().answered == 2, "nothing was left to cut when it was looked at"


def test_the_first_runs_to_its_end_while_there_is_no_answer():
    program = make(samples=3)
    first, second = program.propose(2)
    program.receive(so_far(first, LOST, 4))
    program.receive(so_far(second, LOST, 4))
    assert program.cancelled() == [second.id]
    program.receive(ended(second, None, LOST[:4], reason="aborted"))
    assert program.votes().n == 0
    program.receive(ended(first, "8", LOST))
    assert program.answer().value == "8"
    assert program.votes().n == 2
    (third,) = program.propose(1)
    program.receive(so_far(third, LOST, 4))
    assert program.cancelled() == [third.id]


@pytest.mark.parametrize("reason", ["error", "aborted", "stop"])
def test_where_the_first_gives_no_answer_the_next_is_spared(reason):
    program = make(samples=5)
    first, second, third, fourth = program.propose(4)
    program.receive(so_far(second, LOST, 4))
    program.receive(ended(first, None, reason=reason))
    program.receive(so_far(fourth, LOST, 4))
    program.receive(so_far(third, LOST, 4))
    assert program.cancelled() == [second.id, fourth.id]
    program.receive(ended(third, "8", LOST))
    assert program.answer().value == "8"


def test_one_that_somebody_else_cut_is_no_evidence():
    program = make()
    first, second = program.propose(2)
    program.receive(ended(first, "7"))
    program.receive(ended(second, None, SURE[:4], reason="aborted"))
    assert (program.votes().n, program.votes().max_samples) == (1, 3)


def test_without_log_probabilities_nothing_is_lost():
    program = make()
    first, second = program.propose(2)
    program.receive(ended(first, "7"))
    program.receive(Progress(second.id, "", 8))
    assert program.cancelled() == []
    program.receive(Generation(second.id, "7", 12))
    assert program.votes().answered == 2


fates = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["7", "8", None]), st.sampled_from(["stop", "error"])),
    min_size=1,
    max_size=10,
)


@settings(deadline=None)
@given(fates, st.integers(1, 5), st.randoms(use_true_random=False))
def test_never_all_are_cut_in_any_order(fates, wave, random):
    program = make(samples=len(fates))
    running, tokens, to_end = {}, {}, 0
    while True:
        for request in program.propose(wave - len(running)):
            running[request.id], tokens[request.id] = request, 0
        if not running:
            break
        request = random.choice(list(running.values()))
        is_lost, answer, reason = fates[request.index]
        logprobs = LOST if is_lost else SURE
        tokens[request.id] += 4
        if tokens[request.id] < 12:
            program.receive(so_far(request, logprobs, tokens[request.id]))
            for name in program.cancelled():
                cut = running.pop(name)
                program.receive(ended(cut, None, LOST[: tokens[name]], reason="aborted"))
        else:
            to_end += 1
            program.receive(ended(running.pop(request.id), answer, logprobs, reason))
    votes = program.votes()
    assert to_end > 0
    assert votes.in_flight == 0
    if all(answer and reason == "stop" for _, answer, reason in fates):
        assert program.answer().value is not None
        assert votes.n == votes.max_samples == len(fates)
    assert votes.n <= votes.max_samples <= len(fates)
