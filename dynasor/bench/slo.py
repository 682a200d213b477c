"""Service level: which share of the queries was in time, and how far the rate or the SLO can go.

An answer is in time if its latency is at most the SLO scale times the unloaded latency of its class,
and if it was not cut short because it was due: else whoever answers early enough would be in time at
any rate. Attainment is the share of answers in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np

from dynasor.bench.workload import Completion
from dynasor.intervals import Interval

TARGET = 0.9
"""Attainment that a service promises."""
CUT_SHORT = "deadline"
"""Why a query ended that gave the best answer so far when it was due."""
_DRAWS = 1000


class Window(NamedTuple):
    """The part of a run that counts: arrivals from `start` up to `end`, seconds."""

    start: float
    end: float

    def holds(self, time: float) -> bool:
        """Whether an arrival at that time counts."""
        return self.start <= time < self.end


def counted_window(duration: float, warm_up: float, cool_down: float) -> Window:
    """What is left of a run without its first and last seconds.

    Raises:
        ValueError: if nothing is left.
    """
    window = Window(warm_up, duration - cool_down)
    if warm_up < 0 or cool_down < 0 or window.end <= window.start:
        raise ValueError(
            f"a warm-up of {warm_up:g} s and a cool-down of {cool_down:g} s leave nothing of "
            f"{duration:g} s"
        )
    return window


@dataclass(frozen=True, slots=True)
class Latencies:
    """Query latencies in seconds; None where no query counts."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    longest: float | None


def latencies_of(completions: Sequence[Completion]) -> Latencies:
    """Mean and quantiles; a quantile is the smallest latency that so many queries do not exceed."""
    if not completions:
        return Latencies(None, None, None, None, None)
    values = [completion.latency for completion in completions]
    return Latencies(
        mean=float(np.mean(values)),
        p50=quantile(values, 0.5),
        p90=quantile(values, 0.9),
        p99=quantile(values, 0.99),
        longest=max(values),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Smallest of the values that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered) - 1e-9) - 1)]


def slowdown(completion: Completion, unloaded: Mapping[str, float]) -> float:
    """Latency over the unloaded latency of its class; infinite without an answer of full quality."""
    if not completion.answered or completion.reason == CUT_SHORT:
        return float("inf")
    return completion.latency / unloaded[completion.arrival.group]


def attainment(slowdowns: Sequence[float], scale: float) -> float | None:
    """Share that is in time at an SLO scale; None where nothing counts."""
    if not slowdowns:
        return None
    return sum(value <= scale for value in slowdowns) / len(slowdowns)


class Crossing(NamedTuple):
    """Where attainment reaches the target.

    Attributes:
        value: the rate or scale; None where no measured point reaches the target.
        bound: no measured point fails, so that the true one lies beyond.
    """

    value: float | None
    bound: bool = False


def highest_rate(points: Mapping[float, float], target: float = TARGET) -> Crossing:
    """Highest rate up to which attainment holds the target, from rate -> attainment.

    Between the last rate that holds it and the first that does not, attainment is taken for a
    straight line. A higher rate that holds it again by chance does not count.
    """
    return _last_held(sorted(points.items()), target)


def tightest_scale(points: Mapping[float, float], target: float = TARGET) -> Crossing:
    """Tightest SLO scale down to which attainment holds the target, from scale -> attainment.

    As for `highest_rate`, walking down from the loosest scale.
    """
    return _last_held(sorted(points.items(), reverse=True), target)


def _last_held(points: Sequence[tuple[float, float]], target: float) -> Crossing:
    before: tuple[float, float] | None = None
    for x, share in points:
        if share < target:
            if before is None:
                return Crossing(None)
            last, held = before
            return Crossing(last + (x - last) * (held - target) / (held - share))
        before = (x, share)
    return Crossing(before[0], bound=True) if before else Crossing(None)


def rate_interval(
    points: Mapping[float, Sequence[bool]], seed: int = 0, level: float = 0.95
) -> Interval | None:
    """Percentile interval of the highest rate, over redrawn queries of each rate.

    Args:
        points: rate -> whether each query was in time, all repeats together.
        seed: of the draws.
        level: coverage.

    Returns:
        None where fewer than half of the draws have a highest rate. A draw in which no rate holds
        the target counts as 0.
    """
    random = np.random.default_rng(seed)
    shares = {
        rate: random.binomial(len(met), sum(met) / len(met), _DRAWS) / len(met)
        for rate, met in points.items()
        if met
    }
    found = [
        highest_rate({rate: float(share[draw]) for rate, share in shares.items()}).value
        for draw in range(_DRAWS)
    ]
    if sum(value is not None for value in found) < _DRAWS / 2:
        return None
    return _percentiles([value or 0.0 for value in found], level)


def share_interval(met: Sequence[bool], seed: int = 0, level: float = 0.95) -> Interval | None:
    """Percentile interval of a share, over redrawn queries; None without queries."""
    if not met:
        return None
    draws = np.random.default_rng(seed).binomial(len(met), sum(met) / len(met), _DRAWS)
    return _percentiles((draws / len(met)).tolist(), level)


def _percentiles(values: Sequence[float], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
