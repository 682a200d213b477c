"""An online benchmark in virtual time, from a calibration and recorded samples."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from certaindex.evidence import Evidence
from dynasor.bench.online_plan import Profile
from dynasor.bench.recorded import check_budget, collect_questions
from dynasor.bench.simulated_stage import SimulatedStage, suite_of
from dynasor.bench.simulation import Cluster
from dynasor.bench.systems import OnlineSystem
from dynasor.config import Config
from dynasor.engines.calibration import Calibration
from dynasor.errors import ConfigError
from dynasor.scheduling.aging import aging_of
from dynasor.suites import Suite
from dynasor.traces import read_traces

_DURATION, _WARM_UP, _COOL_DOWN = 30.0, 8.0, 3.0
"""Of a run, in units of the longest unloaded latency of a class: virtual time costs little."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What takes an engine's place.

    Attributes:
        stage: runs the systems.
        suite: the recorded questions.
        profile: how thorough, with times that fit the length of the recorded samples.
        settings: for the folder's run.json.
    """

    stage: SimulatedStage
    suite: Suite
    profile: Profile
    settings: dict[str, Any]


def open_simulation(
    calibration: Path,
    traces: Path | None,
    replicas: int,
    config: Config,
    vanilla: OnlineSystem,
    profile: Profile,
    chats: float,
    evidence: Evidence | None,
) -> Simulation:
    """Read the files, and measure the unloaded latency that the times go by.

    Raises:
        ConfigError: if the trace is missing or a number is out of range.
        DataError: if a file cannot be read, or a question has too few samples.
    """
    if traces is None:
        raise ConfigError("--simulated needs --traces: recorded samples, see `dynasor record`")
    if replicas < 1:
        raise ConfigError(f"--replicas {replicas}: must be 1 or more")
    measured = Calibration.read(calibration)
    questions = collect_questions(read_traces(traces))
    samples = config.algorithm.samples
    check_budget(questions, samples)
    suite = suite_of(traces.name, questions)
    scheduler = config.scheduler
    stage = SimulatedStage(
        Cluster(measured.replica(), replicas, per_request=measured.per_request),
        vanilla,
        questions,
        suite,
        samples=samples,
        alone=max(profile.alone, 5),
        chats=chats,
        aging=aging_of(scheduler),
        weigh=None if evidence is None else lambda sample: evidence.weigh(sample.logprobs),
    )
    longest = max(asyncio.run(stage.reference(capacity=False)).unloaded.values())
    fitting = replace(
        profile,
        duration=_DURATION * longest,
        warm_up=_WARM_UP * longest,
        cool_down=_COOL_DOWN * longest,
    )
    settings = {
        "calibration": asdict(measured),
        "traces": str(traces),
        "replicas": replicas,
        "scheduler": scheduler.model_dump(),
    }
    return Simulation(stage, suite, fitting, settings)


def can_simulate(system: OnlineSystem) -> bool:
    """Whether the simulator has what a system needs: neither prompts nor vLLM's priorities."""
    return system.hints != "rank" and system.policy != "vllm-priority"
