"""When a running sample is a lost one, and what is learned of it."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certaindex.early_cut import LEAST_SAVED, MOST_LOST, CutSamples, EarlyCut, fit_cut
from certaindex.evidence import Evidence, fit_evidence, likelihood
from certaindex.votes import Votes

LEARNED = Evidence(-3.0, 1.5, 2.0, 0.5, samples=1000, cut_below=0.2, look_every=4)


def test_it_is_looked_at_every_few_tokens_only():
    cut = EarlyCut(floor=-1.0, every=4)
    assert cut.lost_at([-9.0, 0, 0]) is None, "no look yet"
    assert cut.lost_at([-9.0, 0, 0, 0]) == 4
    assert cut.lost_at([-1.9, 0, 0, 0]) is None, "-1.9 over the root of 4 is -0.95"
    assert cut.lost_at([0, 0, 0, 0, -9.0, 0, 0, 0, 0]) == 8
    assert cut.lost_at([0, 0, 0, 0, 0, -9.0]) is None
    assert cut.lost_at([]) is None


def test_what_has_no_number_for_a_likelihood_is_not_lost():
    assert EarlyCut(-1.0, 1).lost_at([nan, -99.0, -99.0]) is None


@given(st.lists(st.floats(-5, 0), max_size=40), st.integers(1, 9), st.floats(-3, 0))
def test_what_is_lost_stays_so_and_is_known_when_its_tokens_are(logprobs, every, floor):
    cut = EarlyCut(floor, every)
    lost = cut.lost_at(logprobs)
    for seen in range(len(logprobs) + 1):
        known = cut.lost_at(logprobs[:seen])
        assert known == (lost if lost is not None and seen >= lost else None)
    if lost is not None:
        assert lost % every == 0
        assert likelihood(logprobs[:lost]) < floor + 1e-9


def test_the_floor_is_where_the_chance_is_what_was_learned():
    cut = EarlyCut.of(LEARNED)
    assert LEARNED.probability(cut.floor) == pytest.approx(0.2)
    assert cut.every == 4
    assert EarlyCut.of(replace(LEARNED, cut_below=0.0)) is None
    assert EarlyCut.of(replace(LEARNED, slope=-1.0)) is None, (
        "here the unlikely are the better ones"
    )


# One query ----------------------------------------------------------------------------------------


def test_the_first_is_spared_until_there_is_an_answer():
    samples, votes = CutSamples(), Votes(max_samples=5)
    assert samples.spared == 0
    samples.was_cut(1, 8, votes, running=[0, 2])
    assert votes.n == 0, "no rule shall judge the query by what was cut"
    votes.add(0, 20)
    samples.has_ended(0, votes, running=[2, 3], following=4)
    assert samples.spared is None
    assert (votes.n, votes.answered, votes.total_tokens) == (2, 1, 28)


def test_what_was_cut_counts_after_those_that_were_begun_before_it():
    samples, votes = CutSamples(), Votes(max_samples=8)
    votes.add(0, 20)
    samples.has_ended(0, votes, running=[1, 2, 3], following=4)
    samples.was_cut(2, 8, votes, running=[1, 3])
    samples.was_cut(3, 8, votes, running=[1, 4])
    assert votes.n == 1
    votes.add(0, 30)
    samples.has_ended(1, votes, running=[4], following=5)
    assert (votes.n, votes.answered, votes.total_tokens) == (4, 2, 66)
    samples.was_cut(4, 8, votes, running=[])
    assert votes.n == 5


def test_where_the_spared_one_gives_no_answer_the_next_is_spared():
    samples, votes = CutSamples(), Votes(max_samples=9)
    votes.add(None, 20)
    samples.has_ended(0, votes, running=[4, 3], following=6)
    assert samples.spared == 3
    samples.has_ended(4, votes, running=[3], following=6)
    assert samples.spared == 3
    votes.max_samples -= 1  # the engine failed it
    samples.has_ended(3, votes, running=[], following=6)
    assert samples.spared == 6


# What is learned ----------------------------------------------------------------------------------


def recorded(telling, queries=40, each=12, seed=0):
    """Wrong samples stumble early, if `telling`; all have 100 tokens."""
    draw = np.random.default_rng(seed)
    for _ in range(queries):
        samples = []
        for _ in range(each):
            right = bool(draw.random() < 0.6)
            logprobs = -draw.exponential(0.01, 100)
            stumbles = draw.random() < (0.05 if right and telling else 0.9 if telling else 0.5)
            if stumbles:
                logprobs[int(draw.integers(100))] -= 6.0
            samples.append((logprobs.tolist(), right))
        yield samples


def lesson_of(queries):
    queries = list(queries)
    pairs = [(likelihood(logprobs), right) for samples in queries for logprobs, right in samples]
    return fit_cut(fit_evidence(*zip(*pairs, strict=True)), queries)


def test_where_likelihood_tells_cutting_pays():
    lesson = lesson_of(recorded(telling=True))
    assert lesson.below > 0
    assert lesson.every == 8
    assert lesson.saved >= LEAST_SAVED
    assert lesson.lost <= MOST_LOST
    # What it says of one query is what happens to its samples.
    queries = list(recorded(telling=True))
    pairs = [(likelihood(logprobs), right) for samples in queries for logprobs, right in samples]
    evidence = fit_evidence(*zip(*pairs, strict=True))
    cut = EarlyCut.of(replace(evidence, cut_below=lesson.below, look_every=lesson.every))
    spent = sum(cut.lost_at(logprobs[:-1]) or 100 for samples in queries for logprobs, _ in samples)
    assert lesson.saved == pytest.approx(1 - spent / (40 * 12 * 100))


def test_where_likelihood_tells_nothing_it_is_off():
    assert lesson_of(recorded(telling=False, queries=100)).below == 0


def test_long_samples_are_looked_at_as_often_as_short_ones():
    def every(tokens):
        samples = [([-0.1] * tokens, right) for right in (True, True, False)]
        return fit_cut(LEARNED, [samples]).every

    assert [every(n) for n in (10, 100, 300, 600, 10_000)] == [8, 8, 16, 32, 512]
