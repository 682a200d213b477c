"""How many engines a load takes, and what load engines carry, so that the latency promises are kept.

Both by simulation of the configured settings, each number from several runs with other arrivals and
samples: the answer is that of all runs together, its range that of each run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dynasor.config import NO_RANKING, Config
from dynasor.engines.calibration import Calibration
from dynasor.errors import ConfigError
from dynasor.slo.load_model import Latencies, LoadModel
from dynasor.slo.outcomes import Setting
from dynasor.slo.prediction import latency_parts
from dynasor.slo.promise import QueryClass
from dynasor.slo.space import MOST_REPLICAS, Plan, Platform

STEP = 1.03
"""Ratio of two neighbouring rates that are tried: the resolution of the answer."""
_DOUBLED = 24
"""Steps that about double a rate: far beyond what can be served a simulation takes long."""
_RATES = 800
"""Steps up and down from the first rate, at most."""


class Answer(NamedTuple):
    """Of all runs together, and the least and most of single runs; None where nothing would do."""

    value: float | None
    range: tuple[float | None, float | None]


class Capacity:
    """Answers for one plan.

    Args:
        load: simulates.
        plan: how to serve; its number of replicas is not looked at.
        promises: class -> what is promised of its latency.
        repeats: numbers of the runs.
        progress: called before each simulated run with a text.

    Raises:
        ConfigError: if no class has a latency target or a deadline.
    """

    def __init__(
        self,
        load: LoadModel,
        plan: Plan,
        promises: Mapping[str, QueryClass],
        repeats: Sequence[int],
        progress: Callable[[str], None] | None = None,
    ) -> None:
        if not any(each.targets or each.deadline for each in promises.values()):
            raise ConfigError(
                "[slo] promises no latency: any number of engines would do; add latency = { p90 = 20 }"
            )
        self._load = load
        self._plan = plan
        self._promises = promises
        self._repeats = tuple(repeats)
        self._progress = progress
        self._runs: dict[tuple[float, int, int], dict[str, Latencies]] = {}

    def replicas(self, rate: float) -> Answer:
        """The fewest engines that keep the promises at a rate, queries a second."""

        def fewest(repeats: tuple[int, ...]) -> float | None:
            # Searched as the largest of -1, -2, ...: fewer engines are the bolder choice.
            found = boundary(lambda at: self._kept(rate, -at, repeats), -1, -MOST_REPLICAS, -1)
            return None if found is None else -found

        return self._answer(fewest)

    def rate(self, replicas: int, first: float) -> Answer:
        """The highest rate, queries a second, at which so many engines keep the promises.

        Args:
            replicas: engines.
            first: a rate to begin the search at.
        """

        def highest(repeats: tuple[int, ...]) -> float | None:
            found = boundary(
                lambda at: self._kept(first * STEP**at, replicas, repeats),
                0,
                -_RATES,
                _RATES,
                _DOUBLED,
            )
            return None if found is None else first * STEP**found

        return self._answer(highest)

    def _answer(self, find: Callable[[tuple[int, ...]], float | None]) -> Answer:
        together = find(self._repeats)
        alone = [find((repeat,)) for repeat in self._repeats]
        known = [each for each in alone if each is not None]
        if len(known) < len(alone):
            return Answer(together, (min(known, default=None), None))
        return Answer(together, (min(known), max(known)))

    def _kept(self, rate: float, replicas: int, repeats: tuple[int, ...]) -> bool:
        runs = [self._run(rate, replicas, repeat) for repeat in repeats]
        for group, promise in self._promises.items():
            latency = Latencies(tuple(values for run in runs for values in run[group].runs))
            if any(seen > promised for _, promised, seen, _ in latency_parts(promise, latency)):
                return False
        return True

    def _run(self, rate: float, replicas: int, repeat: int) -> dict[str, Latencies]:
        key = rate, replicas, repeat
        if key not in self._runs:
            if self._progress is not None:
                self._progress(f"{replicas} engines at {rate:.3g} queries a second, run {repeat}")
            platform = self._plan.platform._replace(replicas=replicas)
            plan = self._plan._replace(platform=platform)
            self._runs[key] = self._load.latencies(plan, rate, repeats=[repeat])
        return self._runs[key]


def boundary(
    kept: Callable[[int], bool], first: int, least: int, most: int, longest: int = 1 << 30
) -> int | None:
    """The largest whole number that is kept, where all below it are kept too.

    Walks from `first` by steps that double, up to the `longest`, until one is kept and one is not, then
    halves what is between them.

    Returns:
        None if even `least` is not kept.
    """
    step = 1
    if kept(first):
        low, high = first, first + step
        while high <= most and kept(high):
            step = min(2 * step, longest)
            low, high = high, high + step
        high = min(high, most + 1)
    else:
        low, high = first - step, first
        while low >= least and not kept(low):
            step = min(2 * step, longest)
            low, high = low - step, low
        if low < least:
            if not kept(least):
                return None
            low = least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def plan_of(config: Config, engine: Calibration) -> Plan:
    """The settings of a configuration, those of `[slo.classes.NAME.settings]` first; one engine.

    Raises:
        ConfigError: if the batch is larger than that of the calibrated engine.
    """
    places = engine.max_running
    if "max_running" in config.engine.model_fields_set:
        places = config.engine.max_running
    if places > engine.max_running:
        raise ConfigError(
            f"engine.max_running = {places}: the engine was calibrated with {engine.max_running} at "
            "most; calibrate it anew, or lower it"
        )
    settings = {
        name: Setting(
            each.settings.rule or config.allocator.rule,
            each.settings.samples or config.algorithm.samples,
            each.settings.wave or config.allocator.wave,
        )
        for name, each in config.slo.classes.items()
    }
    policy = config.scheduler.policy
    ranked = config.ranking.model != NO_RANKING
    return Plan(Platform("vllm" if policy == "none" else policy, places, ranked, 1), settings)
