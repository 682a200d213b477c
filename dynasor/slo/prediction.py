"""What a plan is predicted to do, and where that falls short of what was promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dynasor.slo.load_model import Latencies, LoadModel
from dynasor.slo.promise import QueryClass
from dynasor.slo.space import Plan
from dynasor.slo.tables import OutcomeTables, Places, Split

LATE = 0.01
"""Share of the queries that may reach the deadline; the guarantee does not cover their answers."""
DAY = 86400.0


class Shortfall(NamedTuple):
    """One part of a promise that is not kept.

    Attributes:
        group: the class.
        part: key of its section.
        promised: at most this much.
        predicted: and this is expected.
        unit: of both.
    """

    group: str
    part: str
    promised: float
    predicted: float
    unit: str

    @property
    def excess(self) -> float:
        """How far it is exceeded, in units of what is promised."""
        return self.predicted / self.promised - 1

    def __str__(self) -> str:
        above = self.predicted - self.promised
        return (
            f"slo.classes.{self.group}.{self.part} = {self.promised:,.4g} {self.unit}: "
            f"{self.predicted:,.4g} at best, {above:,.3g} above it"
        )


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """What is expected of a class.

    Attributes:
        tokens: output tokens a query, mean.
        samples: finished samples a query, mean.
        loss: against the full budget, mean.
        latency: of the simulated runs.
    """

    tokens: float
    samples: float
    loss: float
    latency: Latencies


Prediction = Mapping[str, ClassPrediction]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be tuned, from recorded queries and a calibrated engine.

    Attributes:
        promises: class -> what it was promised, epsilon and all.
        tables: class -> outcomes of its recorded queries.
        splits: class -> which of them are for what.
        load: simulates latency.
        rate: queries a second, all classes.
        full_samples: full budget of a query.
    """

    promises: Mapping[str, QueryClass]
    tables: Mapping[str, OutcomeTables]
    splits: Mapping[str, Split]
    load: LoadModel
    rate: float
    full_samples: int

    def predict(
        self, plan: Plan, part: Callable[[Split], Places], repeats: Sequence[int]
    ) -> dict[str, ClassPrediction]:
        """Loss and tokens by replay, latency by simulation, on one part of the recorded queries."""
        places = {group: part(split) for group, split in self.splits.items()}
        among = {
            group: [self.tables[group].queries[place].id for place in chosen.tolist()]
            for group, chosen in places.items()
        }
        latencies = self.load.latencies(plan, self.rate, repeats=repeats, among=among)
        found = {}
        for group, promise in self.promises.items():
            outcomes = self.tables[group].of([plan.settings[group]], places[group])
            found[group] = ClassPrediction(
                tokens=float(outcomes.tokens.mean()),
                samples=float(outcomes.samples.mean()),
                loss=float(outcomes.losses(promise.loss).mean()),
                latency=latencies[group],
            )
        return found

    def class_rate(self, group: str) -> float:
        """Queries a second of a class."""
        total = sum(promise.share for promise in self.promises.values())
        return self.rate * self.promises[group].share / total

    def mean(self, values: Mapping[str, float]) -> float:
        """Of a figure of the classes, by their traffic and their weight."""
        weights = {name: each.share * each.weight for name, each in self.promises.items()}
        return sum(weights[name] * values[name] for name in weights) / sum(weights.values())

    def shortfalls(self, prediction: Prediction) -> list[Shortfall]:
        """Latency and token promises that are not kept; the loss is the guarantee's business."""
        found = []
        for group, promise in self.promises.items():
            expected = prediction[group]
            rows = latency_parts(promise, expected.latency)
            if promise.tokens_per_query is not None:
                rows.append(
                    ("tokens_per_query", promise.tokens_per_query, expected.tokens, "tokens")
                )
            if promise.tokens_per_day is not None:
                day = expected.tokens * self.class_rate(group) * DAY
                rows.append(("tokens_per_day", promise.tokens_per_day, day, "tokens"))
            found += [
                Shortfall(group, part, promised, predicted, unit)
                for part, promised, predicted, unit in rows
                if predicted > promised
            ]
        return found


def latency_parts(promise: QueryClass, latency: Latencies) -> list[tuple[str, float, float, str]]:
    """Key, promised, predicted and unit of what a class was promised of its latency, kept or not."""
    rows = [
        (f"latency.p{percent:g}", seconds, latency.percentile(percent), "s")
        for percent, seconds in promise.targets
    ]
    if promise.deadline is not None:
        rows.append(("deadline", promise.deadline, latency.percentile(100 * (1 - LATE)), "s"))
    return rows
