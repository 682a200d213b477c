"""The online benchmark: systems, rates and SLO scales under open-loop traffic, on one machine.

All systems meet the same questions at the same times, on engines that differ in the scheduler only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from dynasor.bench.arrivals import Traffic, group_of, plan_arrivals
from dynasor.bench.live_run import Keep
from dynasor.bench.online_folder import OnlineFolder, PointResult
from dynasor.bench.online_plan import Ladder, Point, next_point, round_figures
from dynasor.bench.online_profile import Profile, check_arrivals
from dynasor.bench.reference import Reference
from dynasor.bench.slo import Window, counted_window
from dynasor.bench.systems import OnlineSystem
from dynasor.bench.workload import Arrival, Completion
from dynasor.errors import EngineError, RunError
from dynasor.suites import Suite

SCALE_RATE = 0.8
"""Where the tightest scale is looked for, in units of vanilla's capacity; the lowest of given rates."""


class StageRun(NamedTuple):
    """What a stage says of a run: its length in seconds, and what was counted on the way."""

    seconds: float
    generator: dict[str, float]
    counters: dict[str, float]


class Stage(Protocol):
    """Where systems with one scheduler run: the real engine, or the simulator."""

    async def reference(self, *, capacity: bool) -> Reference:
        """Measure what all systems are measured by; vanilla's capacity only where it is asked for."""
        ...

    async def run(
        self,
        point: Point,
        system: OnlineSystem,
        arrivals: Sequence[Arrival],
        window: Window,
        keep: Keep,
    ) -> StageRun:
        """Run a system under the traffic; `keep` is given every completion."""
        ...


OpenStage = Callable[[OnlineSystem], AbstractAsyncContextManager[Stage]]


class Watch(Protocol):
    """Is told how the benchmark goes, for a display."""

    def begin(self, point: Point, arrivals: int) -> None:
        """A run begins, with so many arrivals."""
        ...

    def completed(self, completion: Completion) -> None:
        """An arrival was answered."""
        ...

    def ended(self, result: PointResult, reference: Reference) -> None:
        """A run has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is compared.

    Attributes:
        systems: that run.
        suite: the questions.
        traffic: how they come.
        profile: how thorough.
        scale: SLO scale of the sweep over rates.
        rates: arrivals a second, or None for the profile's factors of vanilla's capacity.
        scale_rate: the rate of `rates` at which the tightest scale is looked for; None for the lowest.
        chats: share of plain chats.
        seed: of the traffic.
    """

    systems: tuple[OnlineSystem, ...]
    suite: Suite
    traffic: Traffic
    profile: Profile
    scale: float
    rates: tuple[float, ...] | None
    scale_rate: float | None
    chats: float
    seed: int

    def ladder(self, reference: Reference) -> Ladder:
        """The rates in arrivals a second.

        Raises:
            ConfigError: if a run would have too many arrivals.
        """
        profile, capacity = self.profile, reference.capacity
        if self.rates is not None:
            rates, scale_rate = self.rates, self.scale_rate or self.rates[0]
        else:
            assert capacity is not None, "it is measured where no rates are given"
            rates = tuple(round_figures(factor * capacity) for factor in profile.factors)
            scale_rate = min(rates, key=lambda rate: abs(rate - SCALE_RATE * capacity))
        check_arrivals(rates, profile.duration)
        return Ladder(
            rates=rates,
            scale=self.scale,
            scale_rate=scale_rate,
            repeats=profile.repeats,
            refine=profile.refine,
            scales=profile.scales,
            open_end=self.rates is None and profile.beyond,
        )

    def arrivals(self, point: Point, reference: Reference) -> list[Arrival]:
        """The traffic of a run; the same for all systems."""
        planned = plan_arrivals(
            self.suite,
            self.traffic,
            rate=point.rate,
            duration=self.profile.duration,
            chats=self.chats,
            seed=(self.seed, point.repeat, round(1000 * point.rate)),
        )
        return [
            replace(arrival, deadline=point.scale * reference.unloaded[arrival.group])
            for arrival in planned
        ]

    @property
    def window(self) -> Window:
        """Which arrivals of a run count."""
        profile = self.profile
        return counted_window(profile.duration, profile.warm_up, profile.cool_down)


async def run_online(
    benchmark: Benchmark, folder: OnlineFolder, open_stage: OpenStage, watch: Watch
) -> Ladder:
    """Run what the folder does not hold yet.

    The systems take turns, one run each, in one order and then in the reverse, so that a machine whose
    speed drifts is as slow for the one as for the other; and all rates are run once before any is
    repeated. An engine is started anew where the next system has another scheduler.

    Raises:
        EngineError: if an engine dies; all that was answered is in the folder.
        RunError: if the folder cannot be written, or was measured with other classes.
    """
    turns = _Turns(benchmark, folder, open_stage, watch)
    try:
        reference = await turns.reference()
        ladder = benchmark.ladder(reference)
        for repeats in range(1, ladder.repeats + 1):
            await turns.run_all(replace(ladder, repeats=repeats), reference)
    except EngineError as error:
        raise EngineError(
            f"{error}; the results so far are kept in {folder.path}, and the same command "
            "goes on there"
        ) from error
    finally:
        await turns.close()
    return ladder


class _Turns:
    """Runs systems in turns, with one engine open at a time."""

    def __init__(
        self, benchmark: Benchmark, folder: OnlineFolder, open_stage: OpenStage, watch: Watch
    ) -> None:
        self._benchmark = benchmark
        self._folder = folder
        self._open_stage = open_stage
        self._watch = watch
        self._open = AsyncExitStack()
        self._policy: str | None = None
        self._stage: Stage | None = None

    async def reference(self) -> Reference:
        """What the systems are measured by, from the folder where that has it."""
        if self._folder.reference is None:
            stage = await self._stage_for(self._benchmark.systems[0])
            self._folder.write_reference(
                await stage.reference(capacity=self._benchmark.rates is None)
            )
        reference = self._folder.reference
        assert reference is not None, "it was just written"
        classes = {group_of(query) for query in self._benchmark.suite.queries}
        if lacking := sorted(classes - reference.unloaded.keys()):
            raise RunError(
                f"{self._folder.path} was measured without the class {lacking[0]!r}: the suite has "
                "changed since; choose another --out, or --fresh to throw it away"
            )
        return reference

    async def run_all(self, ladder: Ladder, reference: Reference) -> None:
        """Run all that is missing of a ladder, one run of a system after one of another."""
        turn = list(self._benchmark.systems)
        while turn:
            ran = []
            for system in turn:
                point = next_point(ladder, system, self._folder.slowdowns)
                if point is not None:
                    await self._run(point, system, reference)
                    ran.append(system)
            turn = ran[::-1]

    async def _run(self, point: Point, system: OnlineSystem, reference: Reference) -> None:
        benchmark, folder, watch = self._benchmark, self._folder, self._watch
        stage = await self._stage_for(system)
        arrivals = benchmark.arrivals(point, reference)
        watch.begin(point, len(arrivals))
        completions: list[Completion] = []

        def keep(completion: Completion) -> None:
            completions.append(completion)
            folder.write_completion(point, completion)
            watch.completed(completion)

        run = await stage.run(point, system, arrivals, benchmark.window, keep)
        result = PointResult(point, benchmark.window, tuple(completions), *run)
        folder.write_point(result)
        watch.ended(result, reference)

    async def _stage_for(self, system: OnlineSystem) -> Stage:
        if self._stage is None or system.policy != self._policy:
            await self.close()
            self._stage = await self._open.enter_async_context(self._open_stage(system))
            self._policy = system.policy
        return self._stage

    async def close(self) -> None:
        """Close the engine, if one is open."""
        self._stage = None
        await self._open.aclose()


def settings_of(benchmark: Benchmark, engine: dict[str, Any], traffic: str) -> dict[str, Any]:
    """What makes two benchmarks the same, for the folder's run.json."""
    profile = benchmark.profile
    return {
        "suite": benchmark.suite.name,
        "queries": len(benchmark.suite.queries),
        "traffic": traffic,
        "duration": profile.duration,
        "warm_up": profile.warm_up,
        "cool_down": profile.cool_down,
        "patience": profile.patience,
        "scale": benchmark.scale,
        "chats": benchmark.chats,
        "seed": benchmark.seed,
        **engine,
    }
