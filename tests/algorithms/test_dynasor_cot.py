"""Dynasor-CoT by hand: a chain that grows, probes that come back, the answer after the stop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.dynasor_cot import EFFORT, DynasorCot, Probing
from algorithms.program import Generation, Progress, Sampling
from algorithms.task import Task
from certaindex.hedging import hedges
from certaindex.stopping import parse_rule
from tests.algorithms.conftest import boxed, fresh_groups

QUESTION, CLOSING = " Now: \\boxed{", "</think> \\boxed{"


def make(max_tokens=100, **probing):
    probing = {"interval": 10, "question": QUESTION, "closing": CLOSING} | probing
    return DynasorCot(
        Task(
            "q",
            "what?",
            sampling=Sampling(max_tokens=max_tokens, temperature=0.7, seed=3),
            extract=boxed,
            groups=fresh_groups(),
        ),
        probing=Probing(**probing),
    )


def grow(program, tokens):
    """The chain has so many tokens; the probes that follow."""
    program.receive(Progress("q#chain", "t" * tokens, tokens))
    return program.follow_ups()


def said(request, text, reason="stop", tokens=3):
    return Generation(request.id, text, tokens, finish_reason=reason)


def probed(program, *texts):
    """A chain that runs and was probed with these results."""
    program.propose(1)
    for place, text in enumerate(texts, 1):
        (probe,) = grow(program, 10 * place)
        program.receive(said(probe, text))
    return program


def test_one_chain_is_proposed_and_reports_at_each_interval():
    program = make()
    assert program.propose(0) == []
    (chain,) = program.propose(5)
    assert (chain.report_every, chain.kind, chain.sampling.max_tokens) == (10, "step", 100)
    assert program.propose(1) == []
    assert program.remaining() == 0


def test_a_probe_goes_on_from_the_text_so_far():
    program = make()
    program.propose(1)
    assert grow(program, 9) == []
    (probe,) = grow(program, 12)
    assert probe.kind == "probe"
    assert probe.prefix == "t" * 12 + QUESTION
    assert probe.prompt == "what?", "so it shares the KV of the chain"
    assert probe.sampling.temperature == 0
    assert grow(program, 20) == [], "8 tokens since the last probe"
    assert program.follow_ups() == []


def test_the_last_probes_must_agree():
    rule = parse_rule("stable:3")
    assert rule.decide(probed(make(), "7}", "7}", "7}").votes()).stop == "certain"
    assert rule.decide(probed(make(), "9}", "7}", "7}", "7}").votes()).stop == "certain"
    assert rule.decide(probed(make(), "7}", "7}").votes()).stop is None


@pytest.mark.parametrize("answers", [("7}", "8}", "9}"), ("7}", "7}", "9}"), ("9}", "7}", "7}")])
def test_enough_probes_of_which_the_last_does_not_hedge_are_no_reason_to_stop(answers):
    """The defect of the public reference: it stops here, whatever the probes say."""
    assert not hedges(answers[-1])
    program = probed(make(), *answers)
    assert program.votes().n == 3
    assert parse_rule("stable:3").decide(program.votes()).stop is None
    assert program.certainty().value < 1


@pytest.mark.parametrize("text", ["}", "  }", "7", "7} Wait, no", "but 7}", "7} hmm..."])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_empty_an_unfinished_or_a_hedging_probe_breaks_the_row(text, place):
    texts = ["7}"] * 3
    texts[place] = text
    program = probed(make(), *texts)
    assert parse_rule("stable:3").decide(program.votes()).stop is None
    assert program.votes().n == 3


def test_hedges_are_whole_words():
    assert not hedges("another note on nodes, button, withhold")
    assert all(hedges(text) for text in ("Hold on", "NO.", "okay"))


def test_after_the_stop_the_thought_is_closed_and_the_answer_asked_for():
    program = probed(make(), "7}", "7}", "7}")
    (last,) = program.conclude()
    assert last.kind == "answer"
    assert last.prefix == "t" * 30 + CLOSING
    assert program.answer().value == "7", "if there is no time for it"
    program.receive(said(last, "7}. Done"))
    answer = program.answer()
    assert (answer.value, answer.candidates[0].votes) == ("7", 3)
    assert answer.candidates[0].text == "t" * 30 + CLOSING + "7}. Done"


@pytest.mark.parametrize("reason", ["error", "aborted"])
def test_if_the_last_request_fails_the_last_probe_answers(reason):
    program = probed(make(), "8}", "7}", "}")
    (last,) = program.conclude()
    program.receive(said(last, "9}", reason))
    assert program.answer().value == "7"


def test_a_chain_that_answers_itself_goes_before_its_probes():
    program = probed(make(), "8}", "8}")
    (late,) = grow(program, 30)
    program.receive(_chain("so \\boxed{7}", "stop"))
    assert program.cancelled() == [late.id]
    assert program.conclude() == []
    program.receive(said(late, "8}", "aborted"))
    answer = program.answer()
    assert [c.answer for c in answer.candidates] == ["7", "8"]
    assert program.votes().n == 2
    assert program.follow_ups() == []


def _chain(text, reason):
    return Generation("q#chain", text, 50, finish_reason=reason)


def test_a_chain_that_ran_out_of_tokens_is_asked_for_its_answer():
    program = make()
    program.propose(1)
    program.receive(_chain("thinking and thinking", "length"))
    (last,) = program.conclude()
    assert last.prefix == "thinking and thinking" + CLOSING
    program.receive(said(last, "5}"))
    assert program.answer().value == "5"


def test_probes_that_come_back_out_of_order_are_counted_in_order():
    program = make()
    program.propose(1)
    probes = [grow(program, 10 * n)[0] for n in (1, 2, 3)]
    program.receive(said(probes[2], "3}"))
    program.receive(said(probes[1], "2}"))
    assert program.votes().n == 0
    program.receive(said(probes[0], "1}"))
    assert [c.answer for c in program.answer().candidates] == ["3", "1", "2"]
    assert program.votes().history == [0, 1, 2]
    assert program.votes().tokens == [13, 13, 13], "those of the chain before it are in the bill"


def test_a_failed_probe_is_no_answer_and_holds_nobody_up():
    program = make()
    program.propose(1)
    first, second = grow(program, 10)[0], grow(program, 20)[0]
    program.receive(said(second, "2}"))
    program.receive(said(first, "", "error", 0))
    assert program.votes().history == [None, 0]


def test_levels_of_effort():
    assert list(EFFORT) == ["mild", "low", "mid", "high", "extreme"]
    saving = [window * interval for window, interval in EFFORT.values()]
    assert saving == sorted(saving, reverse=True)


event = st.one_of(
    st.tuples(st.just("grow"), st.integers(1, 40)),
    st.tuples(st.just("probe"), st.text("7}{\\bo waitno", max_size=12)),
)


@settings(deadline=None)
@given(st.lists(event, max_size=30), st.sampled_from(["stop", "length", "aborted", "error"]))
def test_any_texts_in_any_order_are_accounted_for(events, reason):
    program = make(max_tokens=400)
    program.propose(1)
    tokens, running, count = 0, [], 0
    for kind, value in events:
        if kind == "grow":
            tokens = min(400, tokens + value)
            running += grow(program, tokens)
        elif running:
            program.receive(said(running.pop(len(value) % len(running)), value))
            count += 1
    assert program.votes().n <= count <= program.votes().max_samples
    program.receive(_chain("", reason))
    cut = program.cancelled()
    assert cut == sorted(request.id for request in running)
    for request in running:
        program.receive(said(request, "", "aborted", 0))
    last = program.conclude()
    assert len(last) <= 1
    for request in last:
        program.receive(said(request, "1}"))
        assert program.answer().value == "1"
