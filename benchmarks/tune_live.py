"""Does a tuned configuration do on the real engine what was predicted?

    python benchmarks/tune_live.py runs/tune/tuned.toml runs/tune/tune.json [--seconds 240]

Serves the suite's questions at the promised rate with the tuned rule, wave and policy on the engine of
the configuration, in open-loop traffic; then each question that was answered again with the full budget
and the same seeds, so that answers differ by the stop alone. Predicted against measured: tokens,
percentiles of latency, attainment of each target, loss. Intervals of the measured ones are bootstrap
over queries, of shares Clopper and Pearson's. For one class. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from algorithms.program import Event, Program, Request
from certaindex.equivalence import AnswerEquivalence
from dynasor.bench.arrivals import Gamma, plan_arrivals
from dynasor.bench.live_run import run_live
from dynasor.bench.service import Service
from dynasor.bench.slo import counted_window, quantile
from dynasor.bench.systems import OnlineSystem
from dynasor.bench.workload import Arrival, Completion
from dynasor.commands.engine import started
from dynasor.commands.options import bench_seed
from dynasor.config import Config, load_config
from dynasor.engines.base import Engine
from dynasor.intervals import Interval, bootstrap
from dynasor.ranking.scorer import ranking
from dynasor.runtime import Outcome
from dynasor.suites import Suite, load_suite

PATIENCE = 60.0
WARM_UP, COOL_DOWN = 0.1, 0.05
"""Of the traffic, what does not count."""
AT_ONCE = 8
"""Full budgets that run at once, after the traffic."""


@dataclass(frozen=True)
class Figure:
    """One figure, predicted and measured."""

    name: str
    predicted: float
    predicted_interval: Interval | None
    measured: float
    interval: Interval

    @property
    def holds(self) -> bool:
        """Within 10% of the prediction, or the intervals overlap."""
        close = abs(self.measured - self.predicted) <= 0.1 * abs(self.predicted)
        low, high = self.predicted_interval or (self.predicted, self.predicted)
        return close or (self.interval[0] <= high and low <= self.interval[1])


class Answers:
    """Keeps what each query answered; an observer of the runtime."""

    def __init__(self) -> None:
        self.values: dict[str, str | None] = {}

    def received(self, program: Program, request: Request, event: Event) -> None:
        """Nothing to keep."""

    def stopped(self, program: Program, outcome: Outcome) -> None:
        """Keep the answer under the arrival's name."""
        self.values[outcome.query.partition("/")[2]] = outcome.answer.value


def systems_of(config: Config) -> tuple[OnlineSystem, OnlineSystem]:
    """The tuned one and the full budget, in the same order of queries.

    The wave is the same too, for so it was certified: where no answer has a majority, the one that
    was there first leads, and which that is depends on how many samples run at once.
    """
    [promise] = config.slo.classes.values()
    rule = promise.settings.rule or config.allocator.rule
    wave = promise.settings.wave or config.allocator.wave
    tuned = OnlineSystem("tuned", rule, wave, config.scheduler.policy, "forecast", "as configured")
    return tuned, replace(tuned, name="full", rule="full")


def with_samples(config: Config, samples: int) -> Config:
    """The configuration with another budget: fewer samples than the full one may have been chosen."""
    algorithm = config.algorithm.model_copy(update={"samples": samples})
    return config.model_copy(update={"algorithm": algorithm})


async def measure(
    config: Config, suite: Suite, seconds: float, seed: int, full_samples: int
) -> tuple[list[Completion], dict[str, bool]]:
    """Completions that count, and for each whether its answer differs from the full budget's."""
    assert config.slo.rate is not None
    arrivals = plan_arrivals(suite, Gamma(), rate=config.slo.rate, duration=seconds, seed=(seed,))
    window = counted_window(seconds, WARM_UP * seconds, COOL_DOWN * seconds)
    completions: list[Completion] = []
    seen, full = Answers(), Answers()
    with AnswerEquivalence() as equivalence, ranking(config.ranking) as scorer:
        async with started(config, Console(stderr=True)) as engine:

            def service(system: OnlineSystem, observer: Answers, config: Config) -> Service:
                return _service(engine, system, config, suite, equivalence, observer, scorer)

            tuned, whole = systems_of(config)
            await run_live(
                service(tuned, seen, config),
                arrivals,
                window,
                patience=PATIENCE,
                keep=completions.append,
            )
            counted = [each for each in completions if window.holds(each.arrival.time)]
            all_of_it = service(whole, full, with_samples(config, full_samples))
            await _again(all_of_it, [each.arrival for each in counted])
        differs = {
            each.arrival.id: not _same(
                equivalence, seen.values.get(each.arrival.id), full.values[each.arrival.id]
            )
            for each in counted
        }
    return counted, differs


def _service(
    engine: Engine,
    system: OnlineSystem,
    config: Config,
    suite: Suite,
    equivalence: AnswerEquivalence,
    observer: Answers,
    scorer: Any,
) -> Service:
    return Service(
        engine, system, config, suite, equivalence, label=system.name, observer=observer, scorer=scorer
    )  # fmt: skip


async def _again(service: Service, arrivals: list[Arrival]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def answer(arrival: Arrival) -> None:
        async with places:
            await service.answer(arrival)

    await asyncio.gather(*(answer(arrival) for arrival in arrivals))


def _same(equivalence: AnswerEquivalence, one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return equivalence.same(one, other)


def figures_of(
    config: Config, predicted: dict[str, Any], counted: list[Completion], differs: dict[str, bool]
) -> list[Figure]:
    """Each figure of the only class."""
    [(name, promise)] = config.slo.classes.items()
    expected = predicted["classes"][name]["expected"]
    certified = (0.0, predicted["classes"][name]["calibration"]["bound"])  # of the loss
    latency = np.array([each.latency for each in counted])
    tokens = np.array([float(each.tokens) for each in counted])
    lost = np.array([float(differs[each.arrival.id]) for each in counted])
    found = [
        Figure("tokens a query", expected["tokens"], None, tokens.mean(), bootstrap(tokens)),
        Figure("answers that differ", expected["loss"], certified, lost.mean(), _exact(lost)),
    ]
    for key, seconds in expected["latency"].items():
        percent = float(key.removeprefix("p"))
        interval = expected["latency_interval"][key]
        around = None if interval is None else (interval[0], interval[1])
        measured = quantile(latency.tolist(), percent / 100)
        found.append(Figure(f"{key}, s", seconds, around, measured, _spread(latency, percent)))
    for percent, seconds in promise.targets:
        met = (latency <= seconds).astype(float)
        key = f"attainment of p{percent:g}"
        found.append(Figure(key, percent / 100, (percent / 100, 1.0), met.mean(), _exact(met)))
    return found


def _exact(hits: NDArray[np.float64]) -> Interval:
    """Clopper and Pearson's interval of a share, 95%."""
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def _spread(latency: NDArray[np.float64], percent: float) -> Interval:
    """95% of a percentile over redrawn queries."""
    draw = np.random.default_rng(0)
    picks = draw.integers(len(latency), size=(2000, len(latency)))
    low, high = np.quantile(np.percentile(latency[picks], percent, axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("predicted", type=Path)
    parser.add_argument("--suite", default="embedded")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    config = bench_seed(load_config(given.config))
    if len(config.slo.classes) != 1 or config.slo.rate is None:
        parser.error(f"{given.config}: needs [slo] with a rate and one class")
    suite = load_suite(given.suite, limit=given.limit)
    predicted = json.loads(given.predicted.read_text())
    [expected] = predicted["classes"].values()
    full_samples = expected["tested"][0]["settings"]["samples"]  # the full budget is tested first
    counted, differs = asyncio.run(measure(config, suite, given.seconds, given.seed, full_samples))
    figures = figures_of(config, predicted, counted, differs)
    if given.json:
        print(json.dumps([asdict(each) | {"holds": each.holds} for each in figures], indent=1))
        return
    print(f"{len(counted)} queries at {config.slo.rate:g} a second")
    for each in figures:
        low, high = each.interval
        print(
            f"{each.name:22} predicted {each.predicted:9.4g}  measured {each.measured:9.4g} "
            f"[{low:.4g}, {high:.4g}]  {'holds' if each.holds else 'does not hold'}"
        )


if __name__ == "__main__":
    main()
