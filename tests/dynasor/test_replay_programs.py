"""Programs on recorded samples in virtual time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.deepconf import Confidence, DeepConf
from algorithms.dynasor_cot import DynasorCot, Probing
from algorithms.program import Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.short_m_of_k import ShortMOfK
from algorithms.task import Task
from certaindex.stopping import parse_rule
from dynasor.errors import DataError
from dynasor.replay_programs import play
from dynasor.traces import TraceSample
from tests.algorithms.conftest import boxed, fresh_groups

NEVER = parse_rule("never")


def samples(*rows):
    return [
        TraceSample(
            query="q",
            sample=n,
            tokens=tokens,
            text=f"\\boxed{{{answer}}}",
            finish_reason="stop",
            confidence=[sure] * tokens,
        )
        for n, (tokens, answer, sure) in enumerate(rows)
    ]


def common():
    return {"extract": boxed, "groups": fresh_groups()}


def self_consistency(n):
    return SelfConsistency(Task("q", "", sampling=Sampling(), **common()), samples=n)


def test_in_step_the_short_ones_end_first_and_what_runs_is_billed_to_the_cut():
    rows = samples((30, "2", 1), (10, "1", 1), (20, "1", 1), (99, "2", 1))
    program = ShortMOfK(Task("q", "", sampling=Sampling(), **common()), first=2, samples=4)
    done = play(program, rows, NEVER, wave=4)
    assert (done.answer.value, done.samples) == ("1", 2)
    assert done.time == 20
    assert done.tokens == 10 + 20 + 20 + 20


def test_a_rule_stops_it_and_cuts_what_runs():
    rows = samples(*[(10, "1", 1)] * 3, (50, "2", 1), (50, "2", 1))
    done = play(self_consistency(5), rows, parse_rule("fixed:3"), wave=4)
    assert (done.samples, done.time) == (3, 10)
    assert done.tokens == 3 * 10 + 10


def test_a_weak_trace_is_cut_where_its_group_falls():
    rows = samples((40, "1", 5), (40, "1", 5), (40, "2", 1))
    program = DeepConf(
        Task("q", "", sampling=Sampling(top_logprobs=5), **common()),
        samples=3,
        confidence=Confidence(group=8, keep=0.5, warm_up=2, report_every=4),
    )
    done = play(program, rows, NEVER, wave=3)
    assert done.tokens == 80 + 8, "two looks after it began, its first group is whole"
    assert done.answer.value == "1"


def test_what_was_not_recorded_cannot_be_played():
    with pytest.raises(DataError, match="the trace has only 1 samples"):
        play(self_consistency(2), samples((1, "1", 1)), NEVER, wave=1)
    chain = DynasorCot(Task("q", "", sampling=Sampling(), **common()), probing=Probing())
    with pytest.raises(DataError, match="only whole samples"):
        play(chain, samples((1, "1", 1)), NEVER, wave=1)


row = st.tuples(st.integers(1, 30), st.sampled_from("123"), st.floats(0, 9))


@settings(deadline=None)
@given(st.lists(row, min_size=1, max_size=8), st.integers(1, 8))
def test_without_a_rule_all_tokens_are_paid_once_whatever_the_wave(rows, wave):
    done = play(self_consistency(len(rows)), samples(*rows), NEVER, wave=wave)
    assert done.tokens == sum(tokens for tokens, _, _ in rows)
    assert done.samples == len(rows)
    assert max(t for t, _, _ in rows) <= done.time <= done.tokens
