"""An online benchmark in virtual time, from a calibration and recorded samples."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from certaindex.early_cut import EarlyCut
from certaindex.evidence import Evidence
from dynasor.bench.online_profile import Profile
from dynasor.bench.recorded import RecordedQuestion, check_budget, collect_questions
from dynasor.bench.simulated_stage import SimulatedStage, suite_of
from dynasor.bench.simulation import Cluster
from dynasor.bench.systems import OnlineSystem
from dynasor.config import NO_RANKING, Config, RankingConfig
from dynasor.engines.calibration import Calibration
from dynasor.errors import ConfigError, DataError
from dynasor.ranking.ranked import Ranked, ranked_by
from dynasor.ranking.scorer import load_ranking
from dynasor.scheduling.aging import aging_of
from dynasor.suites import Suite
from dynasor.traces import read_traces

SLOClass = Literal["level", "question"]
"""Whose latency on the idle engine a deadline goes by: that of a fifth of the questions by length, or
that of the question itself."""
SLO_CLASSES: tuple[SLOClass, ...] = ("level", "question")
_DURATION, _WARM_UP, _COOL_DOWN = 30.0, 8.0, 3.0
"""Of a run, in units of the longest unloaded latency of a class: virtual time costs little."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What takes an engine's place.

    Attributes:
        stage: runs the systems.
        suite: the recorded questions.
        settings: for the folder's run.json.
    """

    stage: SimulatedStage
    suite: Suite
    settings: dict[str, Any]

    def fitted(self, profile: Profile) -> Profile:
        """The profile with times that fit the length of the recorded samples."""
        longest = max(asyncio.run(self.stage.reference(capacity=False)).unloaded.values())
        return replace(
            profile,
            duration=_DURATION * longest,
            warm_up=_WARM_UP * longest,
            cool_down=_COOL_DOWN * longest,
        )


def open_simulation(
    calibration: Path,
    traces: Sequence[Path],
    replicas: int,
    slo_class: str,
    config: Config,
    vanilla: OnlineSystem,
    profile: Profile,
    chats: float,
    evidence: Evidence | None,
) -> Simulation:
    """Read the files.

    Raises:
        ConfigError: if the trace is missing or a number is out of range.
        DataError: if a file cannot be read, or a question has too few samples.
    """
    if not traces:
        raise ConfigError("--simulated needs --traces: recorded samples, see `dynasor record`")
    if replicas < 1:
        raise ConfigError(f"--replicas {replicas}: must be 1 or more")
    if slo_class not in SLO_CLASSES:
        raise ConfigError(f"--slo-class {slo_class}: there are {', '.join(SLO_CLASSES)}")
    measured = Calibration.read(calibration)
    questions = _questions(traces)
    samples = config.algorithm.samples
    check_budget(questions, samples)
    suite = suite_of(
        "+".join(path.name for path in traces), questions, by_question=slo_class == "question"
    )
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
        ranked=ranked_questions(config.ranking, questions),
        weigh=None if evidence is None else lambda sample: evidence.weigh(sample.logprobs),
        fit_memory=scheduler.fit_memory,
        cut=None if evidence is None else EarlyCut.of(evidence),
    )
    settings = {
        "calibration": asdict(measured),
        "traces": [str(path) for path in traces],
        "replicas": replicas,
        "slo_class": slo_class,
        "scheduler": scheduler.model_dump(),
    }
    return Simulation(stage, suite, settings)


def _questions(traces: Sequence[Path]) -> dict[str, RecordedQuestion]:
    """The recorded questions of all files, each named after its file where there are several."""
    found: dict[str, RecordedQuestion] = {}
    for path in traces:
        for name, question in collect_questions(read_traces(path)).items():
            name = f"{path.name}/{name}" if len(traces) > 1 else name
            if name in found:
                raise ConfigError(f"--traces {path}: given twice")
            found[name] = question
    return found


def can_simulate(system: OnlineSystem, ranking: RankingConfig) -> bool:
    """Whether the simulator has what a system needs: it has no priorities of vLLM."""
    if system.hints == "rank" and ranking.model == NO_RANKING:
        return False
    return system.policy != "vllm-priority"


def ranked_questions(
    ranking: RankingConfig, questions: Mapping[str, RecordedQuestion]
) -> dict[str, Ranked]:
    """What the configured ranker says of each question; nothing where none is configured.

    Raises:
        DataError: if the trace does not say what was asked, or there is no such ranker.
        MissingExtra: if the ranker needs a package that is not there.
    """
    if ranking.model == NO_RANKING:
        return {}
    ranker, calibration = load_ranking(ranking.model)
    prompts = [question.prompt for question in questions.values()]
    silent = [name for name, each in questions.items() if each.prompt is None]
    if silent:
        raise DataError(
            f"ranking.model = {ranking.model!r}: the trace does not say what question {silent[0]} "
            f"asks, nor do {len(silent) - 1} others; use a trace with prompts, or no ranker"
        )
    ranks = ranked_by(ranker, calibration, [prompt or "" for prompt in prompts])
    return {name: each for name, each in zip(questions, ranks, strict=True) if each is not None}
