"""How long queries take under a plan at a rate: simulated engines in virtual time, recorded samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from certaindex.stopping import parse_rule
from dynasor.allocator import Allocator, Grant, LiveQuery, PerQuery, StopReason
from dynasor.bench.arrivals import Traffic, plan_arrivals
from dynasor.bench.recorded import RecordedQuestion
from dynasor.bench.simulation import VLLM, Cluster, simulate
from dynasor.bench.slo import quantile
from dynasor.bench.workload import Arrival
from dynasor.engines.calibration import Calibration
from dynasor.errors import ConfigError
from dynasor.intervals import Interval
from dynasor.ranking.ranked import Ranked
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.queue import Aging
from dynasor.slo.space import Plan
from dynasor.suites import Query, Suite

COUNTED = 400
"""Arrivals of a run, all classes, whose latency counts, where nothing else is said."""
LASTS = 5.0
"""How long a run lasts, as a multiple of the longest time that is promised, at least."""
MOST = 1_000_000
"""Arrivals of a run that count, at most."""
FEWEST = 10
"""Of them those of a class, in the mean, at least: of fewer no percentile can be told."""
WARM_UP = 0.2
"""Arrivals before these, which find the engines still empty, as a share of the counted ones."""


@dataclass(frozen=True, slots=True)
class ClassTraffic:
    """What comes of one class.

    Attributes:
        questions: id -> recorded samples.
        share: of the rate, against the other classes'.
        weight: of a query against those of other classes, in the scheduler's order.
    """

    questions: Mapping[str, RecordedQuestion]
    share: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of the queries of a class, seconds, run by run."""

    runs: tuple[NDArray[np.float64], ...]

    def percentile(self, percent: float) -> float:
        """The smallest latency that so many of all queries do not exceed."""
        values = np.concatenate(self.runs).tolist()
        return quantile(values, percent / 100) if values else inf

    def interval(self, percent: float) -> Interval | None:
        """Where the percentile of one more run would fall, 95%; None with fewer than two runs.

        Student's prediction interval on the logarithms, for run times spread by factors.
        """
        each = [quantile(run.tolist(), percent / 100) for run in self.runs if len(run)]
        if len(each) < 2 or min(each) <= 0:
            return None
        logs, size = np.log(each), len(each)
        spread = float(stats.t.ppf(0.975, size - 1) * logs.std(ddof=1) * (1 + 1 / size) ** 0.5)
        return float(np.exp(logs.mean() - spread)), float(np.exp(logs.mean() + spread))

    def share_above(self, seconds: float) -> float:
        """Share of the queries that took longer."""
        return float(np.mean(np.concatenate(self.runs) > seconds))


class LoadModel:
    """Simulates plans.

    Args:
        engine: size and speed of a replica, as `dynasor calibrate` measured it.
        classes: what comes.
        traffic: how it comes.
        aging: starvation guard of the gang policies.
        fit_memory: whether they look ahead in memory.
        ranked: what a ranker says of each question, class by class; for plans that rank.
        counted: arrivals of a run, all classes, whose latency counts, at least.
        lasting: seconds that they take to come, at least: before a queue has had the time to grow, any
            rate would seem to be served.
        seed: of arrivals and samples.
    """

    def __init__(
        self,
        engine: Calibration,
        classes: Mapping[str, ClassTraffic],
        traffic: Traffic,
        *,
        aging: Aging | None,
        fit_memory: bool,
        ranked: Mapping[str, Mapping[str, Ranked]],
        counted: int = COUNTED,
        lasting: float = 0.0,
        seed: int,
    ) -> None:
        self._engine = engine
        self._classes = classes
        self._traffic = traffic
        self._aging = aging
        self._fit_memory = fit_memory
        self._questions = {
            _name(group, each): question
            for group, traffic_of in classes.items()
            for each, question in traffic_of.questions.items()
        }
        self._ranked = {
            _name(group, each): rank
            for group, ranks in ranked.items()
            for each, rank in ranks.items()
        }
        self._counted = counted
        self._lasting = lasting
        self._seed = seed

    def latencies(
        self,
        plan: Plan,
        rate: float,
        *,
        repeats: Sequence[int],
        among: Mapping[str, Collection[str]] | None = None,
    ) -> dict[str, Latencies]:
        """Class -> latencies at a rate.

        Args:
            plan: how to serve.
            rate: queries a second, all classes.
            repeats: numbers of the runs; another number, other arrivals and samples. But for run 0
                each asks questions drawn with replacement, so that runs differ as much as questions
                make them.
            among: class -> questions that are asked; None for all.

        Raises:
            ConfigError: if a run would have too many arrivals, or too few of a class.
        """
        self._check(rate)
        found: dict[str, list[NDArray[np.float64]]] = {group: [] for group in self._classes}
        for repeat in repeats:
            begin = WARM_UP * self._seconds(rate)
            by_class: dict[str, list[float]] = {group: [] for group in self._classes}
            for completion in self._run(plan, self._arrivals(rate, repeat, among), repeat):
                if completion[1] >= begin:
                    by_class[completion[0]].append(completion[2])
            for group, values in by_class.items():
                found[group].append(np.array(values))
        return {group: Latencies(tuple(runs)) for group, runs in found.items()}

    def _check(self, rate: float) -> None:
        """See that a run can be simulated, and shows each class."""
        arrivals = rate * self._seconds(rate)
        if arrivals > MOST:
            raise ConfigError(
                f"a simulated run at {rate:,.6g} queries a second lasts {LASTS:g} times the longest "
                f"time that [slo] promises and would have {arrivals:,.3g} queries, above {MOST:,}; "
                "lower the rate or promise less time"
            )
        total = sum(each.share for each in self._classes.values())
        for group, each in self._classes.items():
            expected = arrivals * each.share / total
            if expected < FEWEST:
                raise ConfigError(
                    f"slo.classes.{group}.share = {each.share:g} gives it {expected:.2g} of the "
                    f"{arrivals:,.0f} queries of a simulated run, too few to tell how long they take; "
                    f"give --arrivals {ceil(FEWEST * total / each.share)} or a larger share"
                )

    def _seconds(self, rate: float) -> float:
        """That the arrivals that count take to come."""
        return max(self._counted / rate, self._lasting)

    def _arrivals(
        self, rate: float, repeat: int, among: Mapping[str, Collection[str]] | None
    ) -> list[Arrival]:
        total = sum(each.share for each in self._classes.values())
        arrivals: list[Arrival] = []
        for place, (group, each) in enumerate(self._classes.items()):
            asked = sorted(each.questions if among is None else among[group])
            if repeat:
                draw = np.random.default_rng((self._seed, repeat, place))
                asked = [asked[pick] for pick in draw.integers(len(asked), size=len(asked))]
            queries = tuple(Query(_name(group, q), "", None, {"slo_class": group}) for q in asked)
            arrivals += plan_arrivals(
                Suite(group, queries, "boxed"),
                self._traffic,
                rate=rate * each.share / total,
                duration=(1 + WARM_UP) * self._seconds(rate),
                seed=(self._seed, repeat, place),
            )
        arrivals.sort(key=lambda arrival: arrival.time)
        return [replace(each, id=f"{number}/{each.id}") for number, each in enumerate(arrivals)]

    def _run(
        self, plan: Plan, arrivals: list[Arrival], repeat: int
    ) -> list[tuple[str, float, float]]:
        """Class, time of arrival and latency of each query."""
        platform = plan.platform
        replica = replace(
            self._engine.replica(),
            max_running=platform.places,
            fit_memory=self._fit_memory and platform.policy != VLLM,
        )
        groups = {arrival.id: arrival.group for arrival in arrivals}
        ended = simulate(
            arrivals,
            self._questions,
            Cluster(replica, platform.replicas, per_request=self._engine.per_request),
            ByClass(plan, groups),
            samples={group: setting.samples for group, setting in plan.settings.items()},
            policy=platform.policy,
            aging=self._aging,
            forecast={
                group: Forecast(parse_rule(setting.rule)).weighted(self._classes[group].weight)
                for group, setting in plan.settings.items()
            },
            ranked=self._ranked if platform.ranked else None,
            seed=self._seed + repeat,
        )
        return [(c.arrival.group, c.arrival.time, c.latency) for c in ended.completions]


class ByClass:
    """An allocator with the rule and the wave of each query's class.

    Args:
        plan: the settings of the classes.
        groups: id of a query -> its class.
    """

    def __init__(self, plan: Plan, groups: Mapping[str, str]) -> None:
        self._groups = groups
        self._each: dict[str, Allocator] = {
            group: PerQuery(parse_rule(setting.rule), setting.wave)
            for group, setting in plan.settings.items()
        }

    def _of(self, query: LiveQuery) -> Allocator:
        return self._each[self._groups[query.program.id]]

    def admit(self, query: LiveQuery) -> None:
        """Tell its class."""
        self._of(query).admit(query)

    def review(self, query: LiveQuery) -> StopReason | None:
        """Ask its class."""
        return self._of(query).review(query)

    def grants(self) -> list[Grant]:
        """Of all classes."""
        return [grant for each in self._each.values() for grant in each.grants()]

    def spent(self) -> list[LiveQuery]:
        """Of all classes."""
        return [query for each in self._each.values() for query in each.spent()]

    def release(self, query: LiveQuery) -> None:
        """Tell its class."""
        self._of(query).release(query)


def _name(group: str, question: str) -> str:
    return f"{group}/{question}"
