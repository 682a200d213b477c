"""Beam search, DVTS, REBASE and MCTS by hand, over a model and a reward that tests write."""

import random as randoms

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from algorithms.beam_search import BeamSearch
from algorithms.mcts import Mcts
from algorithms.program import Generation, Sampling
from algorithms.rebase import Rebase, shares
from algorithms.task import Task
from algorithms.tree import Steps
from tests.algorithms.conftest import boxed, fresh_groups

KINDS = ["beam", "dvts", "rebase", "rollouts", "values"]


def make(kind, leaves=4, seed=None, **more):
    task = Task("q", "what?", Sampling(seed=seed, max_tokens=100), boxed, fresh_groups())
    common = {
        "leaves": leaves,
        "steps": Steps(delimiter="\n", tokens=9, depth=more.pop("depth", 5)),
    }
    if kind == "rebase":
        more.setdefault("width", leaves)
        return Rebase(task, **common, **more)
    if kind in ("beam", "dvts"):
        more.setdefault("children", min(2, leaves))
        more.setdefault("width", leaves if kind == "beam" else more["children"])
        return BeamSearch(task, **common, **more)
    more.setdefault("children", 2)
    return Mcts(task, rollouts=kind == "rollouts", **common, **more)


def said(request, text, reason="stop", tokens=5):
    return Generation(request.id, text, tokens, finish_reason=reason)


def scored(request, reward):
    return Generation(request.id, "", 0, reward=reward)


def level(program, results, n=99):
    """Run a level: (text, reward) of each step in the order of the requests; the requests."""
    requests = program.propose(n)
    assert len(requests) == len(results)
    for request, (text, reward) in zip(requests, results, strict=True):
        program.receive(said(request, text))
        (score,) = program.follow_ups()
        program.receive(scored(score, reward))
    return requests


def test_a_step_ends_at_the_delimiter_and_goes_on_from_its_node():
    program = make("beam", seed=7)
    first = level(program, [("a\n", 0.9), ("b\n", 0.1), ("c\n", 0.8), ("d\n", 0.2)])
    assert [r.prefix for r in first] == [""] * 4
    assert first[0].sampling.stop == ("\n",)
    assert first[0].sampling.keep_stop
    assert first[0].sampling.max_tokens == 9
    assert [r.sampling.seed for r in first] == [7, 8, 9, 10]
    second = program.propose(99)
    assert [r.prefix for r in second] == ["a\n", "a\n", "c\n", "c\n"], "the best two"
    assert [r.id for r in second] == ["q#step-4", "q#step-5", "q#step-6", "q#step-7"]


def test_no_level_begins_before_the_last_reward_of_the_one_above():
    program = make("beam")
    requests = program.propose(99)
    for request in requests:
        program.receive(said(request, "x\n"))
    scores = program.follow_ups()
    assert [s.prefix for s in scores] == ["x\n"] * 4
    for score in scores[:-1]:
        program.receive(scored(score, 0.5))
        assert program.propose(99) == []
    assert program.votes().in_flight == 1
    program.receive(scored(scores[-1], 0.5))
    assert len(program.propose(99)) == 4


def test_a_leaf_votes_with_its_reward_and_makes_the_beam_narrower():
    program = make("beam")
    level(program, [("so \\boxed{7}", 0.6), ("b\n", 0.9), ("c\n", 0.8), ("d\n", 0.7)])
    assert program.votes().weights == [0.6]
    assert program.votes().rewards == [0.6]
    second = program.propose(99)
    assert [r.prefix for r in second] == ["b\n", "b\n"], "3 places, 2 children each"


def test_dvts_keeps_the_best_of_each_tree():
    program = make("dvts")
    level(program, [("a\n", 0.9), ("b\n", 0.8), ("c\n", 0.1), ("d\n", 0.2)])
    assert [r.prefix for r in program.propose(99)] == ["a\n", "a\n", "d\n", "d\n"]


def end(program, requests, answer, reward=0.9):
    """Steps end their answers, and are scored."""
    for request in requests:
        program.receive(said(request, f"so \\boxed{{{answer}}}"))
        (score,) = program.follow_ups()
        program.receive(scored(score, reward))


@pytest.mark.parametrize("kind", ["rebase", "beam"])
def test_a_further_tree_is_begun_when_the_one_before_has_ended(kind):
    program = make(kind, leaves=6, width=4)
    first = program.propose(4)
    assert [r.prefix for r in first] == [""] * 4
    end(program, first[:3], 7)
    assert program.propose(3) == [], "the fourth may yet go on"
    program.receive(said(first[3], "d\n"))
    assert program.propose(4) == [], "its reward is not there"
    program.receive(scored(program.follow_ups()[0], 0.1))
    (last,) = program.propose(4)
    assert last.prefix == "d\n"
    end(program, [last], 8)
    assert program.remaining() > 0
    second = program.propose(4)
    assert [r.prefix for r in second] == ["", ""], "what is left of the budget"
    end(program, second, 8)
    assert program.remaining() == 0
    assert program.propose(4) == []
    assert program.votes().counts == [3, 3], "the trees vote together"


def test_trees_stand_side_by_side_where_there_is_room_and_do_not_wait_for_each_other():
    program = make("dvts", leaves=6)
    first = program.propose(5)
    assert len(first) == 4, "two trees of two"
    for request, (text, reward) in zip(first[:2], [("a\n", 0.1), ("b\n", 0.2)], strict=True):
        program.receive(said(request, text))
        program.receive(scored(program.follow_ups()[0], reward))
    second = program.propose(99)
    assert [r.prefix for r in second] == ["b\n", "b\n"], (
        "the other tree is still at its first level"
    )
    end(program, second, 7)
    third = program.propose(99)
    assert [r.prefix for r in third] == ["", ""], "the last tree comes when one has ended"


def test_a_tree_that_was_lost_leaves_the_others():
    program = make("rebase", leaves=4, width=2)
    for request in program.propose(2):
        program.receive(said(request, "", "error"))
    assert program.remaining() > 0
    end(program, program.propose(2), 7)
    assert program.answer().value == "7"
    assert program.remaining() == 0


def test_rebase_shares_a_level_out_by_reward():
    program = make("rebase", leaves=8, temperature=0.2)
    level(program, [("a\n", 0.9), ("b\n", 0.5), *[("c\n", 0.1)] * 6])
    prefixes = [r.prefix for r in program.propose(99)]
    assert len(prefixes) == 8
    assert prefixes.count("a\n") > prefixes.count("b\n") >= 1 > prefixes.count("c\n") / 6


@example([0.0, 1e-300], 1, 1.0)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 64), st.floats(0.01, 10))
def test_shares_are_whole_sum_up_and_follow_the_rewards(rewards, slots, temperature):
    counts = shares(rewards, slots, temperature)
    assert sum(counts) == slots
    assert min(counts) >= 0
    best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
    assert counts[best] >= counts[worst]


def test_what_has_no_end_at_the_depth_limit_is_given_up():
    program = make("rebase", leaves=2, depth=3)
    for _ in range(3):
        level(program, [("x\n", 0.5), ("y\n", 0.5)])
    assert program.propose(99) == []
    assert program.remaining() == 0
    assert program.answer().value is None


def test_a_lost_step_makes_the_level_poorer_and_a_lost_level_ends_the_search():
    program = make("beam")
    a, b, c, d = program.propose(99)
    for lost in (a, b):
        program.receive(said(lost, "", "error"))
    program.receive(said(c, "c\n"))
    program.receive(said(d, "d\n"))
    third, fourth = program.follow_ups()
    program.receive(Generation(third.id, "", 0, finish_reason="error"))
    program.receive(scored(fourth, 0.1))
    assert [r.prefix for r in program.propose(99)] == ["d\n", "d\n"]
    for request in list(program._growing):
        program.receive(Generation(request, "", 0, finish_reason="error"))
    assert program.propose(99) == []
    assert program.remaining() == 0


def test_the_same_results_in_another_order_give_the_same_tree():
    def prefixes(order):
        program = make("rebase", leaves=4)
        requests = program.propose(99)
        rewards = {"a\n": 0.9, "b\n": 0.5, "c\n": 0.45, "d\n": 0.4}
        texts = dict(zip([r.id for r in requests], rewards, strict=True))
        for place in order:
            program.receive(said(requests[place], texts[requests[place].id]))
        for score in program.follow_ups():
            program.receive(scored(score, rewards[score.prefix]))
        return [r.prefix for r in program.propose(99)]

    assert prefixes([0, 1, 2, 3]) == prefixes([3, 1, 0, 2])


def test_mcts_spreads_simulations_that_run_at_once():
    program = make("values", leaves=8, children=2, exploration=1.0)
    first = program.propose(99)
    assert [r.prefix for r in first] == ["", ""], "the root has room for two"
    for request, text in zip(first, ("a\n", "b\n"), strict=True):
        program.receive(said(request, text))
    for score in program.follow_ups():
        program.receive(scored(score, 0.5))
    second = program.propose(4)
    assert sorted(r.prefix for r in second) == ["a\n", "a\n", "b\n", "b\n"]
    assert [r.prefix for r in second][:2] != ["a\n", "a\n"], "a visit under way counts as a loss"


def test_mcts_goes_where_the_reward_is():
    program = make("values", leaves=8, children=2, exploration=0.1)
    for request, (text, reward) in zip(
        program.propose(2), [("a\n", 0.1), ("b\n", 0.9)], strict=True
    ):
        program.receive(said(request, text))
        program.receive(scored(program.follow_ups()[0], reward))
    assert [r.prefix for r in program.propose(1)] == ["b\n"]


def test_mcts_rollouts_add_all_their_steps():
    program = make("rollouts", leaves=4, children=1, exploration=0.0)
    (request,) = program.propose(1)
    assert request.sampling.stop == ()
    program.receive(said(request, "a\nb\nso \\boxed{7}"))
    program.receive(scored(program.follow_ups()[0], 0.8))
    node, texts = program.root, []
    while node.children:
        (node,) = node.children
        texts.append((node.text, node.depth, node.ended))
    assert texts == [("a\n", 1, False), ("a\nb\n", 2, False), ("a\nb\nso \\boxed{7}", 3, True)]
    assert program.votes().rewards == [0.8]
    assert program.propose(1) == [], "nothing is left to try with one child a node"
    assert program.remaining() == 0


def test_mcts_takes_the_loss_back_when_a_simulation_fails():
    program = make("values", leaves=4)
    (request,) = program.propose(1)
    program.receive(said(request, "", "error"))
    assert program._tallies[program.root] == (0, 0.0)
    assert program.root.running == 0
    assert [r.prefix for r in program.propose(1)] == [""]


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("beam", {"children": 9}, "children must be between 1 and width = 4"),
        ("rebase", {"width": 5}, "width must be between 1 and leaves = 4"),
        ("rebase", {"temperature": 0.0}, "temperature must be above 0"),
        ("rollouts", {"children": 0}, "children must be 1 or more"),
        ("rebase", {"leaves": 0}, "leaves must be 1 or more"),
        ("rebase", {"depth": 0}, "depth must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **wrong)


TEXTS = ["a\n", "b\n", "", "\n", "\\boxed{1}", "x\n\\boxed{2}", "\\boxed{", "}\n", "a\nb\nc\n"]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.integers(1, 6), st.integers(0, 10**6), st.integers(1, 5))
def test_any_search_ends_within_its_budget_and_accounts_for_all(kind, leaves, seed, wave):
    random = randoms.Random(seed)
    trees = {"width": random.randint(1, leaves)} if kind == "rebase" else {}
    program = make(kind, leaves=leaves, **trees)
    running, ids, steps = [], set(), 0
    while True:
        running += program.propose(max(0, wave - len(running)))
        running += program.follow_ups()
        if not running:
            break
        request = running.pop(random.randrange(len(running)))
        assert request.id not in ids
        ids.add(request.id)
        assert program.votes().in_flight >= 1
        if request.kind == "score":
            program.receive(scored(request, random.choice([None, 0.0, 0.3, 1.0])))
        else:
            steps += 1
            reason = random.choice(["stop", "stop", "stop", "length", "error", "aborted"])
            program.receive(said(request, random.choice(TEXTS), reason))
    assert program.votes().n <= leaves + wave
    assert steps <= leaves * 5 + wave
    assert program.votes().in_flight == 0
    assert program.remaining() == 0
