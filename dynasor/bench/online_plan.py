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
