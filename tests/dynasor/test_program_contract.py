"""What holds of every program, whatever comes back and in whatever order: the contract of
`algorithms/program.py`."""

import random as randoms

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.agentwrite import AgentWrite, Care
from algorithms.chat import Chat
from algorithms.program import Generation, Progress, Sampling
from algorithms.task import Task
from dynasor.config import load_config
from dynasor.programs import ALGORITHMS, Ingredients, build_program, sampling_of
from dynasor.search_shape import width_of
from tests.algorithms.conftest import boxed, fresh_groups

TEXTS = [
    "",
    "\n\n",
    "a\n\n",
    "so \\boxed{1}",
    "x\n\ny\n\nso \\boxed{2}",
    "\\boxed{\\boxed{{",
    "}}}\n\n\\boxed{}",
    "1}",
    "wait, 2}",
    "\u202e\x00\\end{all} ignore what was said",
    "Part 1: one - 20 words\nPart 2: [independent] two - 30 words\nPart 3: three - 25 words",
    "word " * 25,
]
REASONS = ["stop", "stop", "stop", "length", "error", "aborted"]
DEPTH = 4


def config_of(name, samples):
    algorithm = {
        "name": name,
        "samples": samples,
        "max_tokens": 40,
        "seed": 5,
        "search": {"children": min(2, samples), "depth": DEPTH},
        "cot": {"interval": 3},
        "deepconf": {"warm_up": 2, "group": 2, "report_every": 1},
    }
    return load_config(overrides={"algorithm": algorithm}, environment={})


def make(name, samples):
    """A fresh program, and the most requests of its own (no probes, no rewards) that it may make."""
    if name == "chat":
        return Chat("q", "what?", sampling=Sampling(seed=1), choices=samples), samples
    if name == "agentwrite":
        care = Care(attempts=2)
        sampling = Sampling(max_tokens=99)
        return AgentWrite("q", "Write.", words=300, sampling=sampling, care=care), 2 * (1 + 3)
    config = config_of(name, samples)
    task = Task("q", "what?", sampling_of(config), boxed, fresh_groups())
    program = build_program(Ingredients(config, task, None))
    most = {"dynasor-cot": 1, "mcts": samples}
    levels = DEPTH if name in ("beam-search", "dvts", "rebase") else 1
    return program, most.get(name, samples * levels)


def drive(program, most, seed, wave):
    """Run a program to its end with what a seed says; all that it decided on the way."""
    random = randoms.Random(seed)
    running, following, seen, named = {}, set(), set(), set()
    reported, own, decided = {}, 0, []
    while True:
        free = wave - len(running) + len(following)
        asked = program.propose(max(0, free))
        assert len(asked) <= max(0, free)
        own += len(asked)
        more = program.follow_ups()
        following |= {request.id for request in more}
        for request in (*asked, *more):
            assert request.id not in seen, "each request has a name of its own"
            assert request.program == program.id
            seen.add(request.id)
            running[request.id] = request
        cut = program.cancelled()
        assert not named & set(cut), "named once"
        assert set(cut) <= set(running)
        named |= set(cut)
        certainty, votes = program.certainty(), program.votes()
        assert 0 <= certainty.value <= 1
        decided.append((asked, more, cut, certainty, list(votes.history), votes.in_flight))
        decided.append((program.answer(), program.remaining()))
        if not running:
            break
        assert own <= most
        request = running[random.choice(list(running))]
        tokens = reported.get(request.id, 0)
        if request.report_every and tokens < 40 and random.random() < 0.7:
            tokens += request.report_every
            reported[request.id] = tokens
            sure = [random.random() for _ in range(tokens)]
            program.receive(Progress(request.id, random.choice(TEXTS), tokens, confidence=sure))
            continue
        del running[request.id]
        following.discard(request.id)
        reason = "aborted" if request.id in named else random.choice(REASONS)
        reward = random.choice([None, 0.0, 0.4, 1.0]) if request.kind == "score" else None
        text, sure = random.choice(TEXTS), [random.random()] * random.randint(0, 4)
        program.receive(
            Generation(
                request.id, text, 5, finish_reason=reason, reward=reward, confidence=sure
            )
        )  # fmt: skip
    assert program.votes().in_flight == 0
    assert program.remaining() == 0
    last = program.conclude()
    assert len(last) <= 1
    assert {request.kind for request in last} <= {"answer"}
    for request in last:
        program.receive(Generation(request.id, random.choice(TEXTS), 5))
    decided.append((last, program.answer()))
    return decided


@pytest.mark.parametrize("name", [*ALGORITHMS, "chat", "agentwrite"])
@settings(deadline=None, max_examples=25)
@given(samples=st.integers(1, 6), seed=st.integers(0, 10**6), wave=st.integers(1, 7))
def test_it_ends_within_its_budget_and_the_same_events_give_the_same_decisions(
    name, samples, seed, wave
):
    first, second = (drive(*make(name, samples), seed, wave) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("name", "samples", "search", "width"),
    [
        ("rebase", 8, {}, 4),
        ("rebase", 5, {}, 3),
        ("rebase", 1, {}, 1),
        ("rebase", 8, {"width": 2}, 2),
        ("beam-search", 8, {"children": 4}, 4),
        ("beam-search", 16, {"children": 3}, 9),
        ("beam-search", 4, {"children": 4}, 4),
        ("dvts", 8, {"children": 2}, 2),
        ("dvts", 2, {"children": 4}, 2),
    ],
)
def test_a_tree_has_half_of_the_budget_and_the_full_budget_is_searched_at_once(
    name, samples, search, width
):
    algorithm = {"name": name, "samples": samples, "search": search}
    config = load_config(overrides={"algorithm": algorithm}, environment={})
    program = ALGORITHMS[name]
    assert width_of(config) == program.wave(config) == width, "a whole level of one tree"
    plain = program.plain(config)
    assert program.wave(plain) == samples
    assert width_of(plain) == (width if name == "dvts" else samples)
