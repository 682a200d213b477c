"""Ranks on their way: from the configuration to the runtime's hints, and in the simulator."""

import asyncio
from contextlib import closing
from dataclasses import replace
from math import log
from threading import Event

import numpy as np
import pytest

from algorithms.program import Generation, Progress, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.groups import AnswerGroups, ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import collect_questions
from dynasor.bench.simulated_bench import can_simulate, ranked_questions
from dynasor.bench.simulation import Cluster, simulate
from dynasor.bench.systems import all_systems
from dynasor.bench.workload import Arrival
from dynasor.config import RankingConfig, load_config
from dynasor.engines.base import Capacity
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.errors import ConfigError, DataError
from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.length_prior import LengthPrior
from dynasor.ranking.ranked import Ranked
from dynasor.ranking.scorer import LengthScorer, load_ranking
from dynasor.runtime import Runtime
from dynasor.scheduling.forecast import Forecast
from dynasor.traces import TraceSample

RULE = parse_rule("fixed:4")
CALIBRATION = LengthCalibration((0.0, 10.0), (4.0, 6.0), (0.5, 0.5), ((4.0,), (6.0,)), (0.5,), 80)


class ByLength:
    name = "by length"

    def score(self, prompts):
        return np.array([float(len(prompt)) for prompt in prompts])


class Broken:
    name = "broken"

    def score(self, prompts):
        raise RuntimeError("no weights")


class Noting:
    """An engine that answers at once, after one report, and notes the hints."""

    def __init__(self, tokens=50, reported=None):
        self.hints = []
        self.tokens = tokens
        self.reported = reported

    async def submit(self, request):
        if self.reported:
            yield Progress(request.id, "", self.reported)
        await asyncio.sleep(0)
        yield Generation(request.id, "7", self.tokens)

    async def abort(self, ids):
        pass

    def hint(self, gang, hints):
        self.hints.append(hints)

    def capacity(self):
        return Capacity(4, "noting", False)


class Disagreeing(Noting):
    """Answers of one length; those to `hard` programs all differ."""

    async def submit(self, request):
        await asyncio.sleep(0)
        answer = request.id if request.program.startswith("hard") else "7"
        yield Generation(request.id, answer, self.tokens)


def program(name="q", samples=4):
    groups = AnswerGroups(ExactEquivalence())
    task = Task(name, "what?", Sampling(), lambda text: text, groups)
    return SelfConsistency(task, samples=samples)


async def hints_of(ranker, question, forecast=True, engine=None):
    engine = engine or Noting()
    scorer = None if ranker is None else LengthScorer(ranker, CALIBRATION, deadline=10)
    runtime = Runtime(
        engine, PerQuery(RULE, 1), forecast=Forecast(RULE) if forecast else None, scorer=scorer
    )
    try:
        await runtime.solve(program(), question=question)
    finally:
        if scorer is not None:
            scorer.close()
    return engine.hints


async def test_the_first_hints_tell_rank_and_tokens_of_the_prompt():
    short, long = [(await hints_of(ByLength(), "x" * size))[0] for size in (1, 9)]
    assert (short.rank, long.rank) == (-4, 4)
    assert 3 * short.tokens < long.tokens


async def test_prompts_like_those_that_took_many_samples_are_told_as_more_work():
    engine, rule = Disagreeing(), parse_rule("default")
    asked = {"hard": "Prove the lemma on prime {}.", "easy": "Add the apples of basket {}!"}
    first = {}
    with closing(LengthScorer(ByLength(), CALIBRATION, deadline=10)) as scorer:
        runtime = Runtime(engine, PerQuery(rule, 1), forecast=Forecast(rule), scorer=scorer)
        for number in range(40):
            for kind, question in asked.items():
                engine.hints.clear()
                query = program(f"{kind}{number}", samples=16)
                await runtime.solve(query, question=question.format(number))
                first[kind] = [hints.tokens for hints in engine.hints]
    assert first["hard"][0] == pytest.approx(first["easy"][0], rel=0.2)  # nothing was tried yet
    assert first["hard"][1] > 2 * first["easy"][1]


async def test_a_rank_alone_is_told_where_nothing_is_foreseen():
    first = (await hints_of(ByLength(), "x" * 9, forecast=False))[0]
    assert (first.rank, first.tokens) == (4, None)


@pytest.mark.parametrize(("ranker", "question"), [(Broken(), "x"), (ByLength(), None), (None, "x")])
async def test_without_a_rank_a_query_goes_on_as_ever(ranker, question):
    told = await hints_of(ranker, question)
    plain = await hints_of(None, None)
    assert [hints.rank for hints in told] == [None] * len(told)
    assert [hints.tokens for hints in told] == pytest.approx([hints.tokens for hints in plain])


class Thinking:
    """A ranker that takes until it is let go."""

    name = "thinking"

    def __init__(self):
        self.asked, self.let_go = Event(), Event()

    def score(self, prompts):
        self.asked.set()
        self.let_go.wait(60)
        return np.zeros(len(prompts))


@pytest.mark.parametrize("end", ["deadline", "shutdown"])
async def test_a_query_can_be_ended_while_it_is_ranked(end):
    engine, ranker = Noting(), Thinking()
    scorer = LengthScorer(ranker, CALIBRATION, deadline=60)
    runtime = Runtime(engine, PerQuery(RULE, 1), scorer=scorer)
    deadline = 0.01 if end == "deadline" else None
    solving = asyncio.create_task(runtime.solve(program(), deadline=deadline, question="x"))
    try:
        assert await asyncio.to_thread(ranker.asked.wait, 30)
        if end == "shutdown":
            runtime.conclude()
        outcome = await asyncio.wait_for(solving, 30)  # and does not wait for its rank
        assert not ranker.let_go.is_set()
    finally:
        ranker.let_go.set()
        scorer.close()
    assert (outcome.reason, outcome.answer.value, outcome.bill.output) == ("deadline", None, 0)
    assert engine.hints == []


async def test_what_runs_and_runs_makes_the_query_longer():
    told = await hints_of(None, None, engine=Noting(tokens=9000, reported=8000))
    assert told[1].tokens > 2 * told[0].tokens  # the first report


def trace(prompts=True):
    return collect_questions(
        TraceSample(name, sample, tokens, "7", "7", prompt=name * size if prompts else None)
        for name, size, tokens in (("a", 9, 400), ("b", 1, 20), ("c", 5, 100))
        for sample in range(4)
    )


def order_of(ranked, policy="sjf-rank"):
    replica = ReplicaSettings(StepTime(1.0), max_running=1)
    coming = [Arrival(name, 0.0, name, "query", "g", None) for name in ("a", "c", "b")]
    done = simulate(
        coming, trace(), Cluster(replica), PerQuery(parse_rule("fixed:1"), 1),
        samples=4, policy=policy, forecast=None if policy == "sjf-rank" else Forecast(RULE),
        ranked=ranked,
    )  # fmt: skip
    return [each.arrival.id for each in done.completions]


@pytest.mark.parametrize("policy", ["sjf-rank", "gang-srpt"])
def test_the_simulator_serves_short_prompts_first(policy):
    ranked = {
        name: Ranked(tokens, LengthPrior(log(tokens), 0.3))
        for name, tokens in (("a", 400), ("b", 20), ("c", 100))
    }
    assert order_of(ranked, policy) == ["b", "c", "a"]
    assert order_of(None, policy) == ["a", "c", "b"]


def test_the_online_benchmark_ranks_recorded_questions_where_it_can(tmp_path, monkeypatch):
    none, some = RankingConfig(), RankingConfig(model="some")
    systems = {each.name: each for each in all_systems("default", 4, evidence=None)}
    assert ranked_questions(none, trace(prompts=False)) == {}
    assert not can_simulate(systems["+rank"], none)
    assert can_simulate(systems["+rank"], some)
    assert not can_simulate(replace(systems["+rank"], policy="vllm-priority"), some)
    monkeypatch.setattr(
        "dynasor.bench.simulated_bench.load_ranking", lambda name: (ByLength(), CALIBRATION)
    )
    assert {name: each.rank for name, each in ranked_questions(some, trace()).items()} == {
        "a": 4, "b": -4, "c": 0,
    }  # fmt: skip
    with pytest.raises(DataError, match="does not say what question a asks, nor do 2 others"):
        ranked_questions(some, trace(prompts=False))


@pytest.mark.parametrize("odd", ["nowhere", ""])
def test_a_ranker_that_is_not_there_is_one_clear_error(odd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no ranker in|is missing"):
        load_ranking(odd)


def test_a_ranker_without_a_calibration_says_what_to_do():
    with pytest.raises(DataError, match="scores say nothing about tokens; train the ranker again"):
        load_ranking("prompt-length")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"window": 0.1},
            "ranking.window = 0.1: must be less than ranking.deadline, which is 0.05",
        ),
        ({"deadline": 0}, "ranking.deadline = 0"),
        ({"batch": 0}, "ranking.batch = 0"),
        ({"modell": "x"}, "ranking.modell: no such setting; there are model, deadline, window"),
    ],
)
def test_settings_of_ranking_are_checked(section, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides={"ranking": section}, environment={})
    assert load_config(environment={}).ranking.model == "none"
