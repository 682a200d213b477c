"""DeepConf by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.deepconf import Confidence, DeepConf
from algorithms.program import Progress, Sampling
from algorithms.task import Task
from tests.algorithms.conftest import boxed, ended, fresh_groups


def make(samples=4, **confidence):
    confidence.setdefault("group", 2)
    return DeepConf(
        Task("q", "what?", sampling=Sampling(top_logprobs=5), extract=boxed, groups=fresh_groups()),
        samples=samples,
        confidence=Confidence(**confidence),
    )


def test_offline_a_sure_trace_outweighs_two_unsure_ones():
    program = make(samples=3, keep=1.0)
    for request, (answer, sure) in zip(
        program.propose(3), [("1", 1.0), ("1", 1.0), ("2", 9.0)], strict=True
    ):
        program.receive(ended(request, answer, confidence=[sure] * 4))
    assert program.answer().value == "2"
    assert [c.weight for c in program.answer().candidates] == [9.0, 2.0]


def test_offline_only_the_most_confident_share_votes():
    program = make(samples=4, keep=0.5, statistic="mean")
    for request, (answer, sure) in zip(
        program.propose(4), [("1", 3.0), ("1", 3.1), ("2", 5.0), ("2", 2.0)], strict=True
    ):
        program.receive(ended(request, answer, confidence=[sure] * 3))
    votes = program.votes()
    assert (votes.n, votes.answered) == (4, 2)
    assert {c.answer: c.weight for c in program.answer().candidates} == {"2": 5.0, "1": 3.1}


def test_the_first_group_may_be_filtered_later_and_come_back():
    program = make(samples=3, keep=0.4, statistic="mean")
    a, b, c = program.propose(3)
    program.receive(ended(a, "1", confidence=[1.0]))
    assert program.answer().value == "1"
    program.receive(ended(b, "2", confidence=[5.0]))
    assert [c.answer for c in program.answer().candidates] == ["2"]
    program.receive(ended(c, "1", confidence=[7.0]))
    assert [c.answer for c in program.answer().candidates] == ["1"]


def online(warm=(4.0, 6.0)):
    program = make(samples=6, keep=0.5, warm_up=len(warm), report_every=1)
    requests = program.propose(6)
    assert len(requests) == len(warm), "nothing but the warm-up runs before the threshold"
    assert all(request.report_every is None for request in requests)
    for request, sure in zip(requests, warm, strict=True):
        program.receive(ended(request, "1", confidence=[sure] * 4))
    return program


def test_online_the_threshold_is_a_percentile_of_the_warm_up():
    assert make(warm_up=2).threshold is None
    assert online().threshold == 5.0


def test_online_a_trace_is_cut_when_a_group_falls_under_the_threshold():
    program = online()
    a, b = program.propose(2)
    assert a.report_every == 1
    program.receive(Progress(a.id, "x", 2, [9.0, 1.1]))
    assert program.cancelled() == [], "5.05 is enough"
    program.receive(Progress(a.id, "xy", 4, [9.0, 1.1, 8.0, 8.0]))
    assert program.cancelled() == [a.id], "the group in the middle was seen although it is past"
    assert program.cancelled() == []
    program.receive(ended(a, "2", tokens=5, finish_reason="aborted"))
    program.receive(Progress(b.id, "x", 1, [0.1]))
    assert program.cancelled() == [], "no whole group yet"
    votes = program.votes()
    assert (votes.n, votes.answered, votes.max_samples) == (3, 1, 6), "a cut trace was tried"


def test_online_a_weak_trace_that_ends_before_it_is_cut_has_no_vote():
    program = online()
    (request,) = program.propose(1)
    program.receive(ended(request, "2", confidence=[9.0, 9.0, 1.0, 1.0]))
    assert [c.answer for c in program.answer().candidates] == ["1"]


def test_online_a_failed_warm_up_does_not_wait_for_ever():
    program = make(samples=4, warm_up=2)
    a, b = program.propose(4)
    program.receive(ended(a, finish_reason="error"))
    program.receive(ended(b, "1", confidence=[2.0, 2.0]))
    assert program.threshold == 2.0
    assert len(program.propose(4)) == 2


def test_without_confidence_nothing_is_cut_and_nothing_weighs():
    program = make(samples=3, warm_up=1)
    (a,) = program.propose(3)
    program.receive(ended(a, "1"))
    assert program.threshold == -math.inf
    b, _ = program.propose(3)
    program.receive(Progress(b.id, "x", 9, None))
    program.receive(Progress(b.id, "x", 9, [0.0] * 9))
    assert program.cancelled() == []
    assert program.answer().value == "1"
    assert program.votes().weights == [0.0]


@pytest.mark.parametrize("wrong", [{"keep": 0.0}, {"keep": 1.5}, {"group": 0}, {"warm_up": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)


trace = st.tuples(
    st.sampled_from(["1", "2", None]),
    st.sampled_from(["stop", "length", "aborted", "error"]),
    st.lists(st.floats(0, 20), max_size=6),
)


@settings(deadline=None)
@given(st.lists(trace, min_size=1, max_size=8), st.integers(0, 3), st.floats(0.05, 1.0))
def test_every_request_is_accounted_for(traces, warm_up, keep):
    program = make(samples=len(traces), warm_up=warm_up, keep=keep)
    left = list(traces)
    while requests := program.propose(3):
        for request in requests:
            answer, reason, sure = left.pop()
            if request.report_every:
                program.receive(Progress(request.id, "", len(sure), sure))
            if request.id in program.cancelled():
                reason = "aborted"
            program.receive(ended(request, answer, confidence=sure, finish_reason=reason))
    votes = program.votes()
    assert not left
    assert votes.in_flight == 0
    assert votes.remaining == 0
    assert program.remaining() == 0
