"""Every program end to end on the real vLLM and the embedded model, one short question each."""

import runpy
from pathlib import Path

import pytest

from algorithms.agentwrite import AgentWrite, Care
from algorithms.chat import Chat
from algorithms.program import Generation, Sampling
from certaindex.answers import extract
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.offline import make_program
from dynasor.config import load_config
from dynasor.errors import ConfigError
from dynasor.programs import ALGORITHMS, algorithm_of, rule_of
from dynasor.rewards.build import build_reward
from dynasor.rewards.engine import RewardedEngine
from dynasor.rewards.function import FunctionReward
from dynasor.runtime import Runtime
from dynasor.suites import Query, Suite


def true_so_far(prompt, text):
    """A reward that any model's sums can be given: the share of the additions that are true."""
    lines = [line.split("=") for line in text.splitlines() if "=" in line]
    sums = [[_value(side) for side in sides] for sides in lines]
    right = [len(set(values)) == 1 for values in sums if None not in values]
    return sum(right) / len(right) if right else 0.5


def _value(side):
    """A chain of + and - worked out from left to right; None where there is anything else."""
    total, sign = 0, 1
    for token in side.split():
        if token in ("+", "-"):
            sign = 1 if token == "+" else -1
        elif token.isdigit():
            total += sign * int(token)
        else:
            return None
    return total


def config_of(name, **more):
    algorithm = {"name": name, "samples": 4, "seed": 3, "max_tokens": 200, **more}
    return load_config(overrides={"algorithm": algorithm}, environment={})


@pytest.mark.parametrize("certaindex", [True, False])
@pytest.mark.parametrize("name", list(ALGORITHMS))
async def test_it_answers_an_easy_question(vllm_engine, easy_rows, name, certaindex):
    config = config_of(name, search={"children": 2})
    algorithm = algorithm_of(config)
    if not certaindex:
        config = algorithm.plain(config)
    engine = vllm_engine
    if algorithm.scored:
        engine = RewardedEngine(vllm_engine, FunctionReward(true_so_far))
    rule = parse_rule(rule_of(config) if certaindex else algorithm.full(config))
    row = easy_rows[3]
    query = Query(f"{name}-{certaindex}", row["question"], row["answer"])
    suite = Suite("test", (query,), "boxed")
    with AnswerEquivalence() as equivalence:
        program = make_program(config, suite, query, 0, equivalence)
        runtime = Runtime(
            engine, PerQuery(rule, algorithm.wave(config)), in_order=algorithm.in_order
        )
        outcome = await runtime.solve(program)
    assert outcome.answer.value == row["answer"]
    assert outcome.failed == 0
    assert outcome.bill.output > 0
    assert 0 <= outcome.certainty.value <= 1
    if not certaindex:
        assert outcome.reason in ("complete", "certain")


async def test_plain_answers_are_a_gang_and_go_on_from_what_was_begun(vllm_engine, easy_rows):
    row = easy_rows[3]
    prompt = ({"role": "user", "content": row["question"]},)
    sampling = Sampling(seed=3, max_tokens=200)
    runtime = Runtime(vllm_engine, PerQuery(parse_rule("fixed:3"), 3))
    plain = Chat("chat", prompt, sampling=sampling, choices=3)
    outcome = await runtime.solve(plain)
    assert (outcome.reason, outcome.samples, outcome.failed) == ("complete", 3, 0)
    ends = [choice for choice in plain.choices if isinstance(choice, Generation)]
    assert len(ends) == 3
    assert row["answer"] in {extract(end.text, "boxed") for end in ends}
    greedy = Sampling(temperature=0.0, max_tokens=200)
    whole = await said(vllm_engine, Chat("chat-2", prompt, sampling=greedy))
    line, rest = whole.split("\n", 1)
    begun = Chat("chat-3", prompt, sampling=greedy, prefix=f"{line}\n")
    assert await said(vllm_engine, begun) == rest


async def said(engine, program):
    """The text of a single plain answer."""
    await Runtime(engine, PerQuery(parse_rule("fixed:1"), 1)).solve(program)
    (end,) = program.choices
    assert isinstance(end, Generation)
    return end.text


async def test_a_writer_that_plans_nothing_is_asked_no_more_often_than_allowed(vllm_engine):
    """The embedded model writes sums, whatever it is asked for: the text is one part, tried twice."""
    sampling = Sampling(max_tokens=32, seed=1)
    program = AgentWrite("text", "Write.", words=60, sampling=sampling, care=Care(attempts=2))
    outcome = await Runtime(vllm_engine, PerQuery(parse_rule("never"), 4)).solve(program)
    assert (outcome.reason, outcome.failed, program.remaining()) == ("complete", 0, 0)
    assert [part.words for part in program.plan] == [60]
    assert 0 < outcome.bill.output <= 4 * 32
    assert outcome.answer.value == program.texts[0]
    assert 0 <= outcome.certainty.value < 1, "so few tokens are too few words"


EXAMPLE = Path(__file__).parents[2] / "examples" / "two_opinions.py"


async def test_the_program_of_the_documentation_runs_and_is_as_short_as_it_says(
    vllm_engine, easy_rows
):
    assert len(EXAMPLE.read_text().splitlines()) < 60
    two_opinions = runpy.run_path(str(EXAMPLE))["TwoOpinions"]
    counted = []
    with AnswerEquivalence() as equivalence:
        for number, row in enumerate(easy_rows[:8]):
            program = two_opinions(f"two-{number}", row["question"], AnswerGroups(equivalence))
            runtime = Runtime(vllm_engine, PerQuery(parse_rule("never"), 2))
            outcome = await runtime.solve(program)
            assert outcome.samples == 3 or program.votes().counts == [2]
            counted.append(outcome.answer.value == row["answer"])
    assert sum(counted) >= 6


def test_a_program_that_needs_rewards_says_so():
    config = load_config(
        overrides={"algorithm": {"name": "rebase"}, "engine": {"model": "other"}}, environment={}
    )
    with pytest.raises(ConfigError, match=r"needs a reward model: set algorithm\.reward\.kind"):
        build_reward(config)


def test_settings_of_a_program_that_contradict_each_other_are_named():
    config = config_of("beam-search", search={"children": 9})
    suite = Suite("test", (Query("q", "?", None),), "boxed")
    with AnswerEquivalence() as equivalence:
        with pytest.raises(ConfigError, match="'beam-search': children must be between 1 and"):
            make_program(config, suite, suite.queries[0], 0, equivalence)
