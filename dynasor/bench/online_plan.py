"""What the online benchmark runs next, from what it has seen so far: a pure function.

For each system: all rates from the lowest up, each `repeats` times, until attainment has fallen
below `GIVE_UP`; beyond the highest where that still holds the target, and below the lowest where that
does not; then rates between the last that held the target and the first that did not. A system that
knows the deadlines is also run again at tighter and tighter SLO scales, at one rate; for the others
one run tells the attainment at every scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from dynasor.bench.slo import TARGET, attainment, quantile
from dynasor.bench.systems import OnlineSystem
from dynasor.errors import ConfigError

PLACES = 64
"""Requests in the batch at once where the settings do not say: on few cores a larger batch slows each
step down more than it serves."""
GIVE_UP = 0.6
"""Attainment below which no higher rate is tried."""
BEYOND = 1.4
"""Ratio of rates beyond the ends of the ladder."""
MOST = 200
"""Largest rate that is tried, in units of the lowest of the ladder."""
LEAST = 10
"""Lowest of the ladder in units of the least rate that is tried."""
_CLOSE = 1.03
"""Ratio of two scales or rates that are too close to tell apart."""


class Point(NamedTuple):
    """One run: of which system, at which rate (1/s), for which SLO scale, which repeat."""

    system: str
    rate: float
    scale: float
    repeat: int


@dataclass(frozen=True, slots=True)
class Profile:
    """How thorough a benchmark is.

    Attributes:
        factors: rates in units of vanilla's capacity.
        duration: of the traffic of a run, seconds.
        warm_up: first part of it that does not count, seconds.
        cool_down: last part of it that does not count, seconds.
        patience: seconds after that until what is left counts as unfinished.
        repeats: runs of each rate, with other times and other samples.
        refine: rates that are tried between the last that holds the target and the next.
        scales: runs of a deadline-aware system at tighter scales.
        alone: queries a class whose unloaded latency is measured.
        saturated: seconds in which the capacity is measured.
        systems: names of those that run.
    """

    factors: tuple[float, ...]
    duration: float
    warm_up: float
    cool_down: float
    patience: float
    repeats: int
    refine: int
    scales: int
    alone: int
    saturated: float
    systems: tuple[str, ...]


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        factors=(0.8, 1.25, 2.5, 4, 6),
        duration=20,
        warm_up=4,
        cool_down=2,
        patience=15,
        repeats=1,
        refine=0,
        scales=1,
        alone=3,
        saturated=8,
        systems=("vanilla", "ours"),
    ),
    "full": Profile(
        factors=(0.4, 0.6, 0.8, 1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8),
        duration=60,
        warm_up=8,
        cool_down=8,
        patience=60,
        repeats=3,
        refine=2,
        scales=4,
        alone=6,
        saturated=30,
        systems=("all",),
    ),
}


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rates and scales of a benchmark.

    Attributes:
        rates: arrivals a second, ascending.
        scale: SLO scale of the sweep over rates.
        scale_rate: the rate of `rates` at which the tightest scale is looked for.
        repeats, refine, scales: see `Profile`.
        open_end: go on above the highest rate while that holds the target, and below the lowest
            while that does not.
    """

    rates: tuple[float, ...]
    scale: float
    scale_rate: float
    repeats: int
    refine: int
    scales: int
    open_end: bool = False


def check_rates(rates: Sequence[float]) -> tuple[float, ...]:
    """The rates, ascending.

    Raises:
        ConfigError: if one is zero or below, or there is none.
    """
    for rate in rates:
        if not 0 < rate < 1e6:
            raise ConfigError(f"--rates {rate:g}: a rate must be above 0 arrivals a second")
    if not rates:
        raise ConfigError("--rates is empty: give one rate or more")
    return tuple(sorted(set(rates)))


def check_scale_rate(rate: float | None, rates: Sequence[float] | None) -> float | None:
    """The rate at which scales are compared.

    Raises:
        ConfigError: if it is not one of the rates.
    """
    if rate is not None and rate not in (rates or ()):
        raise ConfigError(f"--scale-rate {rate:g}: must be one of --rates")
    return rate


def check_scale(scale: float) -> float:
    """The SLO scale.

    Raises:
        ConfigError: if it is under 1.
    """
    if not 1 <= scale < 1e6:
        raise ConfigError(
            f"--slo-scale {scale:g}: must be 1 or more, for an answer cannot be due before the idle "
            "engine has it"
        )
    return scale


Seen = Mapping[Point, Sequence[float]]
"""Finished runs: slowdown of each query that counts."""


def next_point(ladder: Ladder, system: OnlineSystem, seen: Seen) -> Point | None:
    """The next run of a system, None once it has had all."""
    rates = list(_all_rates(ladder, system.name, seen))
    for refined in range(ladder.refine + 1):
        for rate in sorted(rates):
            point = _missing(ladder, system.name, rate, ladder.scale, seen)
            if point is not None:
                return point
            if rate >= ladder.scale_rate and _held(ladder, system.name, rate, seen) < GIVE_UP:
                break
        between = _between(ladder, system.name, rates, seen)
        if between is None or refined == ladder.refine:
            break
        rates.append(between)
    return _next_scale(ladder, system.name, seen) if system.when_due else None


def shares(seen: Seen, system: str, scale: float) -> dict[float, float]:
    """Rate -> attainment of a system at an SLO scale, its repeats together."""
    together: dict[float, list[float]] = {}
    for point, slowdowns in seen.items():
        if point.system == system and point.scale == scale:
            together.setdefault(point.rate, []).extend(slowdowns)
    return {
        rate: share
        for rate, slowdowns in sorted(together.items())
        if (share := attainment(slowdowns, scale)) is not None
    }


def live_scales(seen: Seen, system: str, rate: float) -> dict[float, float]:
    """Scale that a system was told -> its attainment at that scale, at one rate."""
    told = {point.scale for point in seen if point.system == system and point.rate == rate}
    return {
        scale: share
        for scale in sorted(told)
        if (share := shares(seen, system, scale).get(rate)) is not None
    }


def _all_rates(ladder: Ladder, system: str, seen: Seen) -> Iterator[float]:
    """The rates of the ladder, and those beyond its ends up to the first that settles the target."""
    yield from ladder.rates
    first, last = ladder.rates[0], ladder.rates[-1]
    held = shares(seen, system, ladder.scale)
    while ladder.open_end and held.get(last, 0.0) >= TARGET and last < MOST * ladder.rates[0]:
        last = round_figures(BEYOND * last)
        yield last
    while ladder.open_end and held.get(first, 1.0) < TARGET and first > ladder.rates[0] / LEAST:
        first = round_figures(first / BEYOND)
        yield first


def _missing(ladder: Ladder, system: str, rate: float, scale: float, seen: Seen) -> Point | None:
    for repeat in range(ladder.repeats):
        point = Point(system, rate, scale, repeat)
        if point not in seen:
            return point
    return None


def _held(ladder: Ladder, system: str, rate: float, seen: Seen) -> float:
    return shares(seen, system, ladder.scale).get(rate, 1.0)


def _between(ladder: Ladder, system: str, rates: Sequence[float], seen: Seen) -> float | None:
    """A rate between the last that holds the target and the first that does not."""
    held = shares(seen, system, ladder.scale)
    measured = [rate for rate in sorted(rates) if rate in held]
    for low, high in pairwise(measured):
        if held[high] < TARGET:
            if held[low] < TARGET or high / low < _CLOSE:
                return None
            return round_figures((low * high) ** 0.5)
    return None


def _next_scale(ladder: Ladder, system: str, seen: Seen) -> Point | None:
    """A tighter scale: what the tightest run so far reached though told a looser one."""
    rate = ladder.scale_rate
    live = live_scales(seen, system, rate)
    for scale in live:
        if (point := _missing(ladder, system, rate, scale, seen)) is not None:
            return point
    if not live or len(live) > ladder.scales or live[max(live)] < TARGET:
        return None
    held = min(_unbroken(live))
    failed = max((scale for scale in live if scale < held), default=None)
    if failed is not None:
        tighter = (held * failed) ** 0.5
    else:
        tighter = quantile(
            [
                value
                for point, slowdowns in seen.items()
                if (point.system, point.rate, point.scale) == (system, rate, held)
                for value in slowdowns
            ],
            TARGET,
        )
    tighter = round_figures(tighter)
    if held / tighter < _CLOSE or (failed is not None and tighter / failed < _CLOSE):
        return None
    return Point(system, rate, tighter, 0)


def _unbroken(live: Mapping[float, float]) -> list[float]:
    """The scales from the loosest down that hold the target."""
    kept = []
    for scale in sorted(live, reverse=True):
        if live[scale] < TARGET:
            break
        kept.append(scale)
    return kept


def round_figures(value: float) -> float:
    """Three significant figures, for tables and file lines."""
    return float(f"{value:.3g}")
