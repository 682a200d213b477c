"""`[slo]` of the configuration: what is promised to which class of queries.

A class is a table `[slo.classes.NAME]`. It says which queries it holds (`model`, `effort`, `metadata`;
none of them: all), what they are promised, and in `settings` what keeps the promise, which
`dynasor tune` fills in. A query belongs to the first class that holds it, in the order of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from certaindex.stopping import parse_rule
from dynasor.program_config import Section
from dynasor.server_config import EffortName
from dynasor.slo.watch_config import WatchConfig

LossKind = Literal["answer", "accuracy"]
"""What `epsilon` bounds, as a mean over queries. `answer`: whether the answer differs from the full
budget's, 0 or 1. `accuracy`: whether the full budget was right less whether the answer is, so -1, 0 or
1, which needs questions whose right answer is known."""
Guarantee = Literal["confidence", "mean"]
"""How surely. `confidence`: with probability 1 - delta over the recorded queries that it was calibrated
on (Learn then Test). `mean`: in the mean over such calibrations (conformal risk control); fewer queries
do."""
MOST_CLASSES = 100
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ClassSettings(Section):
    """`[slo.classes.NAME.settings]`: what serves a class; other sections say what is not set."""

    rule: str | None = Field(None, description="stop rule")
    samples: int | None = Field(None, ge=1, le=1024, description="full budget, samples")
    wave: int | None = Field(None, ge=1, le=1024, description="samples in flight")

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        if value is not None:
            parse_rule(value)
        return value


class QueryClass(Section):
    """`[slo.classes.NAME]`: some of the queries, and what they are promised."""

    model: str | None = Field(None, description="queries that name this model")
    effort: EffortName | None = Field(None, description="queries of this reasoning_effort")
    metadata: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="queries whose metadata holds all of this"
    )
    loss: LossKind = Field("answer", description="what epsilon bounds; see `dynasor.slo.promise`")
    epsilon: float | None = Field(
        None,
        ge=0,
        le=1,
        description="most loss against the full budget, mean over queries: 0.02 is 2 points",
    )
    guarantee: Guarantee = Field(
        "confidence", description="with confidence 1 - delta, or in the mean over calibrations"
    )
    delta: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="chance that the promised loss is broken; its confidence is 1 - delta; 0.1 if not "
        "set",
    )
    latency: dict[str, float] = Field(
        default_factory=dict,
        max_length=20,
        description="percentile -> seconds, such as { p50 = 5, p90 = 20 }",
    )
    deadline: float | None = Field(
        None, gt=0, description="seconds after which the best answer so far is given"
    )
    tokens_per_query: int | None = Field(
        None, ge=1, description="most output tokens of a query, in the mean over queries"
    )
    tokens_per_day: int | None = Field(
        None, ge=1, description="most output tokens of all queries of a day"
    )
    share: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="of the queries of slo.rate that are expected of this class, against the shares of "
        "the other classes",
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="what a query counts for against others: the scheduler divides its expected work by "
        "it, and tuning counts its tokens so many times",
    )
    settings: ClassSettings = ClassSettings()

    @field_validator("latency")
    @classmethod
    def _are_percentiles(cls, value: dict[str, float]) -> dict[str, float]:
        for name, seconds in value.items():
            percentile_of(name)
            if not 0 < seconds <= 1e6:
                raise ValueError(
                    f"{name} = {seconds}: must be above 0 seconds and at most a million"
                )
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.epsilon == 0:
            raise ValueError(
                "epsilon = 0: no number of queries can certify a loss of exactly 0; give an epsilon "
                "above 0, or leave it out and set settings.rule = 'never', the full budget itself"
            )
        if self.epsilon == 1:
            raise ValueError(
                "epsilon = 1: all answers may differ, which promises nothing; give an epsilon below 1, "
                "such as 0.02 for 2 points, or leave it out"
            )
        if self.delta is not None and self.epsilon is None:
            raise ValueError(
                f"delta = {self.delta:g} without epsilon: there is nothing to be sure of"
            )
        if self.delta is not None and self.guarantee == "mean":
            raise ValueError(
                f"delta = {self.delta:g} with guarantee = 'mean': a promise in the mean has no "
                "confidence; leave one of the two out"
            )
        for (low, sooner), (high, later) in pairwise(self.targets):
            if later < sooner:
                raise ValueError(
                    f"latency: p{high:g} = {later:g} s is below p{low:g} = {sooner:g} s, but more "
                    "queries cannot be answered in less time"
                )
        if self.deadline is not None:
            for percentile, seconds in self.targets:
                if seconds > self.deadline:
                    raise ValueError(
                        f"latency: p{percentile:g} = {seconds:g} s is above deadline = "
                        f"{self.deadline:g} s, after which no query runs; lower the one or raise the "
                        "other"
                    )
        day, query = self.tokens_per_day, self.tokens_per_query
        if day is not None and query is not None and day < query:
            raise ValueError(
                f"tokens_per_day = {day} is below tokens_per_query = {query}: not one query a day "
                "could be answered"
            )
        return self

    @property
    def targets(self) -> list[tuple[float, float]]:
        """Percentile and seconds of each latency target, lowest percentile first."""
        return sorted((percentile_of(name), seconds) for name, seconds in self.latency.items())

    @property
    def longest(self) -> float:
        """The longest time that is promised, seconds; 0 where none is."""
        return max([*(seconds for _, seconds in self.targets), self.deadline or 0.0])

    @property
    def risk(self) -> float:
        """The chance that the promised loss is broken: delta, or 0.1 where it is not set."""
        return 0.1 if self.delta is None else self.delta

    def holds(self, model: str | None, effort: str | None, metadata: Mapping[str, str]) -> bool:
        """Whether a query is of this class."""
        return (
            self.model in (None, model)
            and self.effort in (None, effort)
            and self.metadata.items() <= metadata.items()
        )

    def covers(self, other: QueryClass) -> bool:
        """Whether every query of the other class is of this one as well."""
        return (
            self.model in (None, other.model)
            and self.effort in (None, other.effort)
            and self.metadata.items() <= other.metadata.items()
        )


class SloConfig(Section):
    """`[slo]`: what is promised."""

    rate: float | None = Field(
        None, gt=0, le=1e6, description="queries a second, all classes, for which it is promised"
    )
    calibration: str | None = Field(
        None, description="what `dynasor tune` learned of the settings, a JSON file"
    )
    audit: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the queries that are given the full budget, to measure the loss",
    )
    classes: dict[str, QueryClass] = Field(
        default_factory=dict, max_length=MOST_CLASSES, description="name -> class of queries"
    )
    watch: WatchConfig = WatchConfig()

    @field_validator("classes")
    @classmethod
    def _are_named(cls, value: dict[str, QueryClass]) -> dict[str, QueryClass]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: must be named by 1 to 64 letters, digits, '_' and '-'")
        return value

    @model_validator(mode="after")
    def _every_class_is_met(self) -> Self:
        names = list(self.classes)
        for place, name in enumerate(names):
            for earlier in names[:place]:
                if self.classes[earlier].covers(self.classes[name]):
                    raise ValueError(
                        f"classes.{name}: class {earlier} stands before it and holds all of its "
                        f"queries; put {name} first, or say how they differ"
                    )
        return self

    def class_of(
        self, *, model: str | None, effort: str | None, metadata: Mapping[str, str]
    ) -> str | None:
        """Name of the first class that holds a query, or None."""
        for name, each in self.classes.items():
            if each.holds(model, effort, metadata):
                return name
        return None

    def planned_rate(self, name: str) -> float | None:
        """Queries a second that are expected of a class, None where no rate is set."""
        if self.rate is None:
            return None
        return (
            self.rate * self.classes[name].share / sum(each.share for each in self.classes.values())
        )

    def check_deadlines(self, most: float) -> None:
        """See that no deadline is above that of the server, seconds.

        Raises:
            ValueError: naming the class.
        """
        for name, each in self.classes.items():
            if each.deadline is not None and each.deadline > most:
                raise ValueError(
                    f"slo.classes.{name}.deadline = {each.deadline:g} s is above "
                    f"server.max_seconds = {most:g} s, at which every query ends"
                )


def percentile_of(name: str) -> float:
    """90.0 for `p90`.

    Raises:
        ValueError: if it is no percentile.
    """
    try:
        value = float(name.removeprefix("p")) if name.startswith("p") else -1.0
    except ValueError:
        value = -1.0
    if not 0 < value < 100:
        raise ValueError(f"{name!r}: a latency target is named by its percentile, such as p90")
    return value
