"""Programs whose requests are whole samples, in the simulator and in step on the same samples."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.best_of_n import BestOfN
from algorithms.deepconf import Confidence, DeepConf
from algorithms.short_m_of_k import ShortMOfK
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import collect_questions, recorded_task
from dynasor.bench.simulation import simulate
from dynasor.bench.workload import Arrival
from dynasor.errors import DataError
from dynasor.replay_programs import play
from dynasor.traces import TraceSample
from tests.dynasor.simulated_traffic import cluster

SAMPLES = 8
NEVER = parse_rule("never")
BUILD = {
    "short-m-of-k": lambda task, n: ShortMOfK(task, first=max(1, n // 2), samples=n),
    "deepconf": lambda task, n: DeepConf(
        task,
        samples=n,
        confidence=Confidence(keep=0.5, group=4, tail=4, warm_up=3, report_every=2),
    ),
}


def drawn(seed):
    """Samples of all different lengths, so that no two end together; weak ones are often wrong."""
    draw = random.Random(seed)
    lengths = draw.sample(range(6, 90), SAMPLES)
    for index, tokens in enumerate(lengths):
        sure = draw.uniform(1, 9)
        answer = "7" if draw.uniform(0, 9) < sure else "8"
        around = [max(0.0, draw.gauss(sure, 1)) for _ in range(tokens)]
        yield TraceSample(
            "q", index, tokens, answer=answer, gold="7", prompt_tokens=5, confidence=around
        )


def simulated(seed, name, kind="query"):
    ended = simulate(
        [Arrival("a", 0.0, "q", kind, "g", None)],
        collect_questions(drawn(seed)),
        cluster(),
        PerQuery(NEVER, SAMPLES),
        samples=SAMPLES,
        program=BUILD[name],
        seed=seed,
    )
    return ended.completions[0]


def in_step(seed, name):
    questions = collect_questions(drawn(seed))
    rows, order = list(drawn(seed)), questions["q"].order(f"{seed}/a", SAMPLES)
    texts = [
        TraceSample(
            "q", n, rows[n].tokens, text=questions["q"].text(n), confidence=rows[n].confidence
        )
        for n in order
    ]
    program = BUILD[name](recorded_task("a"), SAMPLES)
    done = play(program, texts, NEVER, wave=SAMPLES)
    return done, questions["q"].is_right(done.answer.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(BUILD)))
def test_in_the_simulator_it_is_as_in_step(seed, name):
    alone, (done, right) = simulated(seed, name), in_step(seed, name)
    assert (alone.correct, alone.samples) == (right, done.samples)
    # What is cut has a token more or less, by whether the step in which it was cut counts.
    assert abs(alone.tokens - done.tokens) <= SAMPLES


def test_the_first_to_end_answer_and_the_others_are_cut():
    tokens = {index: sample.tokens for index, sample in enumerate(drawn(3))}
    alone = simulated(3, "short-m-of-k")
    assert alone.samples == SAMPLES // 2
    assert alone.tokens < sum(tokens.values())


def test_a_chat_is_one_sample_whatever_the_program():
    assert simulated(3, "short-m-of-k", kind="chat").samples == 1


def test_what_was_not_recorded_is_refused():
    with pytest.raises(DataError, match="only whole samples"):
        simulate(
            [Arrival("a", 0.0, "q", "query", "g", None)],
            collect_questions(drawn(1)),
            cluster(),
            PerQuery(NEVER, SAMPLES),
            samples=SAMPLES,
            program=lambda task, n: BestOfN(task, samples=n),
        )
