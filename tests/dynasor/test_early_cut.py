"""Samples that have become improbable are cut alike in replay, in the simulator and at work."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies

from algorithms.program import Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.early_cut import EarlyCut
from certaindex.equivalence import AnswerEquivalence
from certaindex.evidence import Evidence
from certaindex.groups import AnswerGroups, ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import collect_questions, self_consistency
from dynasor.bench.service import Service
from dynasor.bench.simulation import Cluster, simulate
from dynasor.bench.systems import all_systems
from dynasor.bench.workload import Arrival
from dynasor.config import load_config
from dynasor.engines.replay import ReplayEngine
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.recorded_query import collect_queries
from dynasor.replay_run import run_query
from dynasor.runtime import Runtime
from dynasor.suites import Query, Suite
from dynasor.traces import TraceSample

CUT = EarlyCut(floor=-1.0, every=4)
RULE = parse_rule("evidence:2")


def sample(index, tokens, answer, stumble=None):
    """One whose token number `stumble`, from 1, is improbable."""
    logprobs = [-9.0 if place == stumble else -0.01 for place in range(1, tokens + 1)]
    return TraceSample("q", index, tokens, answer, "7", prompt_tokens=5, logprobs=logprobs)


def drawn(seed, samples=12):
    draw = random.Random(seed)
    for index in range(samples):
        tokens = draw.randint(1, 40)
        stumble = draw.randint(1, 40) if draw.random() < 0.6 else None
        yield sample(index, tokens, draw.choice(["7", "7", "8", None]), stumble)


def replayed(rows, order=None, wave=1, rule=RULE):
    (query,) = collect_queries(rows)
    order = range(len(rows)) if order is None else order
    return run_query(
        query, order, rule, wave, None, lost_at=query.lost_at(CUT), look_every=CUT.every
    )


def test_the_tokens_until_the_cut_count_by_hand():
    rows = [
        sample(0, 20, "8", stumble=2),  # the first is spared
        sample(1, 20, "7", stumble=6),  # looked at after 8
        sample(2, 10, "7"),
        sample(3, 9, "7", stumble=9),  # too late
    ]
    run = replayed(rows, rule=parse_rule("fixed:4"))
    assert (run.tokens, run.samples, run.right) == (20 + 8 + 10 + 9, 4, True)


def test_side_by_side_by_hand():
    rows = [
        sample(0, 20, None, 2),
        sample(1, 20, "8", 2),
        sample(2, 30, "7", 14),
        sample(3, 5, "8"),
    ]
    # The second is cut at 4, before there is an answer, and the fourth gives one at 9. So the first,
    # which was spared at 4 and 8, is cut at 12, and the third at 16.
    run = replayed(rows, wave=3, rule=parse_rule("fixed:64"))
    assert (run.tokens, run.latency, run.samples) == (12 + 4 + 16 + 5, 16, 4)


@pytest.mark.parametrize("seed", range(30))
async def test_at_work_it_is_as_in_the_replay(seed):
    rows = list(drawn(seed))
    engine = ReplayEngine(rows)
    await engine.start()
    program = SelfConsistency(
        Task(
            "q",
            "what?",
            sampling=Sampling(logprobs=True),
            extract=lambda text: extract(text, "boxed"),
            groups=AnswerGroups(ExactEquivalence()),
        ),
        samples=len(rows),
        cut=CUT,
    )
    outcome = await Runtime(engine, PerQuery(RULE, 1), in_order=bool(seed % 2)).solve(program)
    run = replayed(rows)
    assert (outcome.bill.output, outcome.samples, outcome.reason) == (
        run.tokens,
        run.samples,
        run.reason,
    )
    assert (outcome.answer.value == "7") is run.right
    lost = [row for row in rows if CUT.lost_at(row.logprobs[:-1])]
    assert bool(lost) or outcome.bill.cut == 0


def simulated_and_replayed(seed, wave):
    trace = collect_questions(drawn(seed))
    arrival = Arrival("a", 0.0, "q", "query", "g", None)
    cluster = Cluster(ReplicaSettings(StepTime(1.0)))
    ended = simulate(
        [arrival],
        trace,
        cluster,
        PerQuery(RULE, wave),
        samples=12,
        program=self_consistency(cut=CUT),
        seed=seed,
    )
    return ended.completions[0], replayed(
        list(drawn(seed)), trace["q"].order(f"{seed}/a", 12), wave
    )


@settings(max_examples=60, deadline=None)
@given(strategies.integers(0, 10**6))
def test_in_the_simulator_it_is_as_in_the_replay(seed):
    done, run = simulated_and_replayed(seed, wave=1)
    assert (done.tokens, done.samples, done.correct) == (run.tokens, run.samples, run.right)


@pytest.mark.parametrize("wave", [2, 5])
def test_side_by_side_they_agree_but_for_the_order_of_what_ends_together(wave):
    pairs = [simulated_and_replayed(seed, wave) for seed in range(300)]
    simulated, replayed = (sum(one.tokens for one in side) for side in zip(*pairs, strict=True))
    assert simulated == pytest.approx(replayed, rel=0.03)


# The online benchmark -----------------------------------------------------------------------------

LEARNED = Evidence(-0.5, 0.5, 5.0, 0.0, samples=1000, cut_below=0.2, look_every=4)


def test_the_ablation_has_a_line_for_it_where_it_pays():
    def systems(evidence):
        return {one.name: one for one in all_systems("default", 4, evidence=evidence)}

    known = systems(LEARNED)
    names = list(known)
    assert names.index("ours") == names.index("+wave") + 1
    assert [known[name].cuts for name in ("+evidence", "+wave", "ours", "stop-only")] == [
        False, False, True, True
    ]  # fmt: skip
    wave, ours = known["+wave"], known["ours"]
    assert replace(ours, name=wave.name, meaning=wave.meaning, cuts=False) == wave
    for evidence in (None, replace(LEARNED, cut_below=0.0)):
        assert "+wave" not in systems(evidence)
        assert not systems(evidence)["ours"].cuts


@pytest.mark.parametrize(
    ("system", "finished", "cuts"), [("+wave", 30 + 80, False), ("ours", 30, True)]
)
async def test_a_service_cuts_what_its_system_does(tmp_path, system, finished, cuts):
    file = tmp_path / "evidence.json"
    file.write_text(LEARNED.to_json())
    lengths = (30, 80, 40, 40)
    engine = ReplayEngine(
        replace(sample(index, tokens, "8", stumble=5), query="run/a")
        for index, tokens in enumerate(lengths)
    )
    await engine.start()
    algorithm = {"samples": len(lengths), "evidence": str(file)}
    config = load_config(overrides={"algorithm": algorithm, "engine": {"kind": "replay"}})
    suite = Suite("s", (Query("q", "what?", "7", {"level": 1}),), "boxed")
    known = {one.name: one for one in all_systems("default", 4, evidence=LEARNED)}
    with AnswerEquivalence() as equivalence:
        service = Service(engine, known[system], config, suite, equivalence, label="run")
        outcome = await service.answer(Arrival("a", 0.0, "q", "query", "g", None))
    assert outcome.answer.value == "8"
    assert outcome.bill.finished == finished
    # How many more were begun, and cut, by the first one's end is a matter of time.
    assert (8 <= outcome.bill.cut <= 3 * 12) if cuts else outcome.samples == 2
