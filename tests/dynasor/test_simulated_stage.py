"""The online benchmark in virtual time."""

import json
from dataclasses import replace

import pytest

from certaindex.evidence import Evidence
from dynasor.bench.arrivals import parse_traffic
from dynasor.bench.online import Benchmark, run_online
from dynasor.bench.online_folder import OnlineFolder
from dynasor.bench.online_profile import Profile
from dynasor.bench.online_results import report_of
from dynasor.bench.recorded import collect_questions
from dynasor.bench.simulated_bench import can_simulate
from dynasor.bench.simulated_stage import SimulatedStage, suite_of
from dynasor.bench.simulation import Cluster
from dynasor.bench.systems import all_systems
from dynasor.config import RankingConfig
from dynasor.engines.calibration import Calibration
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.errors import EngineError
from dynasor.scheduling.queue import Aging
from dynasor.traces import TraceSample, TraceWriter

SAMPLES, TOKENS, STEP = 8, 50, 0.01
SYSTEMS = {
    system.name: system for system in all_systems("adaptive-consistency:0.95", 4, evidence=None)
}
CLUSTER = Cluster(ReplicaSettings(StepTime(STEP), max_running=16))
PROFILE = Profile(
    factors=(0.5, 1, 2, 4),
    duration=36,
    warm_up=5,
    cool_down=5,
    patience=0,
    repeats=2,
    refine=1,
    scales=2,
    alone=3,
    saturated=0,
    systems=("vanilla", "ours"),
)


def rows():
    """Samples of twenty questions that are clear and five where each sample says something else."""
    return [
        TraceSample(
            query=f"q{q}",
            sample=s,
            tokens=TOKENS,
            gold="1",
            answer="1" if q < 20 else str(s),
            finish_reason="stop",
        )
        for q in range(25)
        for s in range(SAMPLES)
    ]


def questions():
    return collect_questions(rows(), prompt_tokens=10)


@pytest.fixture
def stage():
    recorded = questions()
    return SimulatedStage(
        CLUSTER,
        SYSTEMS["vanilla"],
        recorded,
        suite_of("recorded", recorded),
        samples=SAMPLES,
        alone=3,
        chats=0.0,
        aging=Aging(),
        ranked={},
        weigh=None,
        cut=None,
    )


class Quiet:
    def begin(self, point, arrivals):
        pass

    def completed(self, completion):
        pass

    def ended(self, result, reference):
        pass


def benchmark(*names):
    return Benchmark(
        scale_rate=None,
        systems=tuple(SYSTEMS[name] for name in names),
        suite=suite_of("recorded", questions()),
        traffic=parse_traffic("poisson"),
        profile=PROFILE,
        scale=5,
        rates=None,
        chats=0.0,
        seed=1,
    )


def opener(stage):
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened(system):
        yield stage

    return opened


async def test_the_reference_is_what_can_be_worked_out(stage):
    reference = await stage.reference(capacity=True)
    # A step takes as long with any batch: a sample alone takes its prompt's step and 49 more.
    assert set(reference.unloaded) == {f"level {level}" for level in range(1, 6)}
    for latency in reference.unloaded.values():
        assert latency == pytest.approx(TOKENS * STEP, rel=0.05)
    assert reference.tokens == SAMPLES * TOKENS
    # Sixteen tokens a step.
    assert reference.tokens_per_second == pytest.approx(16 / STEP, rel=0.05)
    assert reference.capacity == pytest.approx(16 / STEP / (SAMPLES * TOKENS), rel=0.05)


async def test_stopping_early_bears_a_higher_rate(stage, tmp_path):
    wanted = benchmark("vanilla", "ours")
    with OnlineFolder(tmp_path, {"suite": "recorded"}) as folder:
        ladder = await run_online(wanted, folder, opener(stage), Quiet())
        report = report_of(wanted.systems, folder, ladder)
        again = await run_online(wanted, folder, opener(None), Quiet())
    assert again == ladder, "all was run: no engine is needed"
    vanilla, ours = report.systems
    assert vanilla.tokens == SAMPLES * TOKENS
    assert ours.tokens < 0.8 * vanilla.tokens
    assert 0.5 * report.capacity < vanilla.max_rate_at_90 < 1.5 * report.capacity
    assert report.rate_ratio > 1.3
    assert vanilla.accuracy == pytest.approx(0.8, abs=0.05)
    rates = [row.rate for row in vanilla.rates]
    assert rates == sorted(rates)
    assert max(rates) < 16, "the highest rate is hopeless for vanilla"


async def test_an_engine_that_dies_keeps_what_was_run(stage, tmp_path):
    class Dying:
        runs = 0

        async def reference(self, *, capacity):
            return await stage.reference(capacity=capacity)

        async def run(self, point, system, arrivals, window, keep):
            self.runs += 1
            if self.runs == 3:
                raise EngineError("it died")
            return await stage.run(point, system, arrivals, window, keep)

    wanted = benchmark("vanilla")
    with OnlineFolder(tmp_path, {}) as folder:
        with pytest.raises(
            EngineError, match=f"it died; the results so far are kept in {tmp_path}"
        ):
            await run_online(wanted, folder, opener(Dying()), Quiet())
    with OnlineFolder(tmp_path, {}) as folder:
        assert len(folder.results) == 2
        kept = dict(folder.results)
        await run_online(wanted, folder, opener(stage), Quiet())
        assert kept.items() <= folder.results.items()


def test_the_simulator_has_neither_prompts_nor_priorities():
    assert {
        name for name, system in SYSTEMS.items() if not can_simulate(system, RankingConfig())
    } == {
        "+rank",
        "priority",
    }


def test_the_command_runs_in_virtual_time(run_here, tmp_path):
    traces, calibration = tmp_path / "traces.jsonl", tmp_path / "engine.json"
    with TraceWriter(traces) as writer:
        for sample in rows():
            writer.write(sample)
    Calibration("m", "h", StepTime(STEP), 100, 0.0, 16, 8192, 10_000, 16).write(calibration)
    result = run_here(
        "bench", "online", "--simulated", calibration, "--traces", traces, "-n", SAMPLES,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [system["name"] for system in report["systems"]] == ["vanilla", "ours"]
    assert report["rate_ratio"] > 1.3


def test_deadlines_by_question_are_asked_of_each_question(run_here, tmp_path):
    # One file's samples are twice as long as the other's: so is what its users wait for alone.
    calibration = tmp_path / "engine.json"
    Calibration("m", "h", StepTime(STEP), 100, 0.0, 16, 8192, 10_000, 16).write(calibration)
    traces = []
    for name, tokens in (("short", TOKENS), ("long", 2 * TOKENS)):
        traces += ["--traces", str(tmp_path / f"{name}.jsonl")]
        with TraceWriter(tmp_path / f"{name}.jsonl") as writer:
            for sample in rows():
                writer.write(replace(sample, tokens=tokens))
    result = run_here(
        "bench", "online", "--simulated", calibration, *traces, "--slo-class", "question",
        "-n", SAMPLES, "--system", "vanilla", "--rates", "0.5", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    unloaded = json.loads(result.stdout)["unloaded"]
    assert len(unloaded) == 50
    for name, tokens in (("short", TOKENS), ("long", 2 * TOKENS)):
        latency = unloaded[f"{name}.jsonl/q3"]
        assert latency == pytest.approx(tokens * STEP, rel=0.05)
    assert "50 classes, " in result.stderr


@pytest.mark.parametrize("system", ["vanilla", "+evidence"])
async def test_who_weighs_pays_for_log_probabilities(system):
    recorded = questions()
    known = Evidence(-0.5, 0.5, 5.0, 0.0, samples=1000)
    chosen = {s.name: s for s in all_systems("default", 4, evidence=known)}[system]
    times = []
    for per_logprob in (0.0, STEP / 2):
        time = StepTime(STEP, per_logprob=per_logprob)
        paid = SimulatedStage(
            Cluster(ReplicaSettings(time, max_running=16)),
            chosen,
            recorded,
            suite_of("recorded", recorded),
            samples=SAMPLES,
            alone=3,
            chats=0.0,
            aging=Aging(),
            ranked={},
            weigh=lambda sample: 1.0,
            cut=None,
        )
        times.append(sum((await paid.reference(capacity=False)).unloaded.values()))
    if system == "vanilla":
        assert times[1] == times[0]
    else:
        assert times[1] > 1.5 * times[0]


def test_recorded_likelihoods_are_weighed_by_a_file_that_is_given(run_here, tmp_path):
    traces, calibration = tmp_path / "traces.jsonl", tmp_path / "engine.json"
    with TraceWriter(traces) as writer:
        for sample in rows():
            writer.write(replace(sample, logprobs=[-0.1 if sample.answer == "1" else -3.0]))
    Calibration("m", "h", StepTime(STEP), 100, 0.0, 16, 8192, 10_000, 16).write(calibration)
    evidence = tmp_path / "evidence.json"
    evidence.write_text(Evidence(-1.5, 1.0, 5.0, 0.0, 100).to_json())

    def tokens(*more):
        result = run_here(
            "bench", "online", "--simulated", calibration, "--traces", traces, "-n", SAMPLES,
            "--rates", "0.5", "--system", "ours", "--out", tmp_path / f"out{len(more)}", "--json",
            *more,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["systems"][0]["tokens"]

    assert tokens("--evidence", evidence) < 0.8 * tokens()
