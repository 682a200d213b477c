"""Best-of-N by hand: samples, then their rewards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.best_of_n import BestOfN
from algorithms.program import Generation, Sampling
from algorithms.task import Task
from tests.algorithms.conftest import boxed, ended, fresh_groups


def make(samples=4, select="weighted"):
    return BestOfN(
        Task("q", "what?", sampling=Sampling(), extract=boxed, groups=fresh_groups()),
        samples=samples,
        select=select,
    )


def scored(request, reward):
    return Generation(request.id, "", 0, reward=reward)


def run(program, results):
    for request, (answer, reward) in zip(program.propose(len(results)), results, strict=True):
        program.receive(ended(request, answer))
        (score,) = program.follow_ups()
        program.receive(scored(score, reward))


RESULTS = [("1", 0.4), ("1", 0.4), ("2", 0.7)]


def test_a_finished_sample_is_scored_before_it_counts():
    program = make()
    (request,) = program.propose(1)
    program.receive(ended(request, "7"))
    assert program.votes().n == 0
    (score,) = program.follow_ups()
    assert (score.kind, score.prompt, score.prefix) == ("score", "what?", "so \\boxed{7}")
    assert program.follow_ups() == []
    assert program.votes().in_flight == 1
    program.receive(scored(score, 0.25))
    assert (program.votes().rewards, program.votes().weights) == ([0.25], [0.25])
    assert program.votes().in_flight == 0


def test_rewards_of_equal_answers_add_up_or_the_best_sample_wins():
    weighted, best = make(), make(select="best")
    run(weighted, RESULTS)
    run(best, RESULTS)
    assert weighted.answer().value == "1"
    assert best.answer().value == "2"
    assert [c.weight for c in best.answer().candidates] == [0.7, 0.4]


def test_certainty_is_agreement_times_the_leader_s_reward():
    program = make()
    run(program, [("1", 0.5), ("1", 0.9)])
    assert program.certainty().value == pytest.approx(0.7)
    assert program.certainty().measure == "reward"


def test_samples_that_failed_or_could_not_be_scored_are_no_evidence():
    program = make(samples=3)
    a, b, c = program.propose(3)
    program.receive(ended(a, "1", finish_reason="error"))
    program.receive(ended(b, "2"))
    program.receive(ended(c, "3"))
    second, third = program.follow_ups()
    program.receive(scored(third, 0.1))
    program.receive(Generation(second.id, "", 0, finish_reason="error", error="down"))
    assert program.answer().value == "3"
    assert program.votes().remaining == 0


outcome = st.tuples(
    st.sampled_from(["1", "2", None]),
    st.sampled_from(["stop", "length", "aborted", "error"]),
    st.one_of(st.none(), st.floats(0, 1)),
)


@settings(deadline=None)
@given(st.lists(outcome, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_every_request_is_accounted_for_in_any_order(outcomes, random):
    program = make(samples=len(outcomes), select=random.choice(["weighted", "best"]))
    running = program.propose(len(outcomes))
    while running:
        request = running.pop(random.randrange(len(running)))
        answer, reason, reward = outcomes[request.index]
        if request.kind == "score":
            program.receive(scored(request, reward))
        else:
            program.receive(ended(request, answer, finish_reason=reason))
        running += program.follow_ups()
    counted = [o for o in outcomes if o[1] in ("stop", "length") and o[2] is not None]
    assert program.votes().n == len(counted)
    assert program.votes().remaining == program.votes().in_flight == program.remaining() == 0
