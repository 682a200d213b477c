"""Systems on a real engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from certaindex.equivalence import AnswerEquivalence
from dynasor.bench.live_run import Keep, run_live
from dynasor.bench.online import StageRun
from dynasor.bench.online_plan import Point
from dynasor.bench.online_profile import Profile
from dynasor.bench.reference import (
    Reference,
    TokenMeter,
    measure_throughput,
    measure_unloaded,
)
from dynasor.bench.service import Service
from dynasor.bench.slo import Window
from dynasor.bench.systems import OnlineSystem
from dynasor.bench.workload import Arrival
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.ranking.scorer import LengthScorer, ScorerCounters
from dynasor.suites import Suite


class LiveStage:
    """Runs systems on a started engine.

    Args:
        engine: with the scheduler of the systems that will run.
        vanilla: the system that is measured for reference.
        config: of the samples.
        suite: the questions.
        profile: how long to measure.
        chats: share of plain chats.
        equivalence: groups answers.
        scorer: ranks questions, or None.
        measured: told of each query of the reference measurement, for a display.
    """

    def __init__(
        self,
        engine: Engine,
        vanilla: OnlineSystem,
        config: Config,
        suite: Suite,
        profile: Profile,
        chats: float,
        equivalence: AnswerEquivalence,
        scorer: LengthScorer | None,
        measured: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._vanilla = vanilla
        self._config = config
        self._suite = suite
        self._profile = profile
        self._chats = chats
        self._equivalence = equivalence
        self._scorer = scorer
        self._measured = measured
        self._runs = 0

    async def reference(self, *, capacity: bool) -> Reference:
        """Vanilla on the idle engine, then at saturation where its capacity is asked for."""
        unloaded, tokens = await measure_unloaded(
            self._service(self._vanilla, "alone"),
            self._suite,
            chats=self._chats,
            count=self._profile.alone,
            progress=self._measured,
        )
        if not capacity:
            return Reference(unloaded, tokens, None)
        meter = TokenMeter()
        rate = await measure_throughput(
            self._service(self._vanilla, "full", observer=meter),
            meter,
            self._suite,
            fill=self._engine.capacity().max_running,
            samples=self._config.algorithm.samples,
            seconds=self._profile.saturated,
        )
        return Reference(unloaded, tokens, rate)

    async def run(
        self,
        point: Point,
        system: OnlineSystem,
        arrivals: Sequence[Arrival],
        window: Window,
        keep: Keep,
    ) -> StageRun:
        """One run, with the engine's counters where it has any."""
        self._runs += 1
        counters = getattr(self._engine, "counters", None)
        if counters is not None:
            await counters(reset=True)
        if self._scorer is not None:
            self._scorer.counters = ScorerCounters()
        live = await run_live(
            self._service(system, f"run-{self._runs}", repeat=point.repeat),
            arrivals,
            window,
            patience=self._profile.patience,
            keep=keep,
        )
        counted = await counters() if counters is not None else {}
        if self._scorer is not None:
            ranks = asdict(self._scorer.counters)
            counted = {**counted, **{f"rank_{name}": value for name, value in ranks.items()}}
        return StageRun(live.seconds, asdict(live.generator), counted)

    def _service(
        self,
        system: OnlineSystem,
        label: str,
        *,
        repeat: int = 0,
        observer: TokenMeter | None = None,
    ) -> Service:
        return Service(
            self._engine,
            system,
            self._config,
            self._suite,
            self._equivalence,
            label=label,
            repeat=repeat,
            observer=observer,
            scorer=self._scorer,
        )
