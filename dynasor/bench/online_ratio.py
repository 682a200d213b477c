"""How far ours is ahead of vanilla, with intervals over repeats and queries.

Repeats are redrawn first, the same ones for both systems, for these ran side by side and share the
machine's mood; then the queries of each run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dynasor.bench.online_plan import Point, Seen
from dynasor.bench.slo import TARGET, highest_rate, quantile, tightest_scale
from dynasor.bench.systems import OnlineSystem
from dynasor.intervals import Interval

DRAWS = 1000
_Draw = Callable[[Sequence[int], np.random.Generator], float | None]
Runs = Mapping[float, Mapping[int, Sequence[float]]]
"""Rate or SLO scale -> repeat -> slowdown of each query that counts."""
_Shares = Mapping[float, Mapping[int, tuple[int, float]]]


def rate_ratio_interval(
    seen: Seen, ours: str, vanilla: str, scale: float, *, seed: int = 0, level: float = 0.95
) -> Interval | None:
    """Percentile interval of the ratio of the highest rates that hold the target.

    Args:
        seen: finished runs.
        ours, vanilla: names of the systems; the ratio is the first's over the second's.
        scale: SLO scale at which rates are compared.
        seed: of the draws.
        level: coverage.

    Returns:
        None where fewer than half of the draws have a ratio.
    """
    one, two = _by_rate(seen, ours, scale), _by_rate(seen, vanilla, scale)
    return _interval(_highest(one, scale), _highest(two, scale), _repeats(one, two), seed, level)


def scale_ratio_interval(
    seen: Seen,
    ours: OnlineSystem,
    vanilla: OnlineSystem,
    rate: float,
    scale: float,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Percentile interval of the ratio of the tightest SLO scales: vanilla's over ours.

    Args:
        seen: finished runs.
        ours, vanilla: the systems; one that knows deadlines has runs of its own for each scale.
        rate: at which scales are compared.
        scale: of the runs of a system that does not know it.
        seed: of the draws.
        level: coverage.

    Returns:
        None where fewer than half of the draws have a ratio.
    """
    draws = []
    repeats: set[int] = set()
    for system in (vanilla, ours):
        by_scale = {
            told: runs
            for told, runs in _by_scale(seen, system.name, rate).items()
            if system.when_due or told == scale
        }
        repeats |= set(_repeats(by_scale, {}))
        draws.append(_tightest(by_scale, system.when_due))
    return _interval(draws[0], draws[1], sorted(repeats), seed, level)


def _interval(
    above: _Draw, below: _Draw, repeats: Sequence[int], seed: int, level: float
) -> Interval | None:
    if not repeats:
        return None
    random = np.random.default_rng(seed)
    ratios = []
    for _ in range(DRAWS):
        drawn = random.choice(repeats, size=len(repeats)).tolist()
        one, two = above(drawn, random), below(drawn, random)
        if one and two and np.isfinite(one) and np.isfinite(two):
            ratios.append(one / two)
    if len(ratios) < DRAWS / 2:
        return None
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _highest(runs: Runs, scale: float) -> _Draw:
    shares = _shares(runs, lambda _: scale)
    return lambda repeats, random: highest_rate(_redrawn(shares, repeats, random)).value


def _tightest(runs: Runs, told: bool) -> _Draw:
    """Of a system that is told the scale, from its runs by scale; else from all queries together."""
    if told:
        shares = _shares(runs, lambda scale: scale)
        return lambda repeats, random: tightest_scale(_redrawn(shares, repeats, random)).value
    queries: dict[int, list[float]] = {}
    for by_repeat in runs.values():
        for repeat, slowdowns in by_repeat.items():
            queries.setdefault(repeat, []).extend(slowdowns)
    known = {repeat: np.array(slowdowns) for repeat, slowdowns in queries.items()}

    def draw(repeats: Sequence[int], random: np.random.Generator) -> float | None:
        found = [
            random.choice(known[repeat], size=len(known[repeat]))
            for repeat in repeats
            if repeat in known
        ]
        return quantile(np.concatenate(found).tolist(), TARGET) if found else None

    return draw


def _shares(runs: Runs, due: Callable[[float], float]) -> _Shares:
    """Rate or scale -> repeat -> queries, and the share of them in time."""
    return {
        key: {
            repeat: (len(slowdowns), sum(value <= due(key) for value in slowdowns) / len(slowdowns))
            for repeat, slowdowns in by_repeat.items()
        }
        for key, by_repeat in runs.items()
    }


def _redrawn(
    shares: _Shares, repeats: Sequence[int], random: np.random.Generator
) -> dict[float, float]:
    """Rate or scale -> attainment among redrawn queries of these repeats; without runs, left out."""
    found = {}
    for key, by_repeat in shares.items():
        drawn = [by_repeat[repeat] for repeat in repeats if repeat in by_repeat]
        if drawn:
            met = sum(random.binomial(queries, share) for queries, share in drawn)
            found[key] = met / sum(queries for queries, _ in drawn)
    return found


def _by_rate(seen: Seen, system: str, scale: float) -> Runs:
    return _grouped(seen, lambda p: p.system == system and p.scale == scale, lambda p: p.rate)


def _by_scale(seen: Seen, system: str, rate: float) -> Runs:
    return _grouped(seen, lambda p: p.system == system and p.rate == rate, lambda p: p.scale)


def _grouped(seen: Seen, holds: Callable[[Point], bool], key: Callable[[Point], float]) -> Runs:
    found: dict[float, dict[int, Sequence[float]]] = {}
    for point, slowdowns in seen.items():
        if holds(point) and slowdowns:
            found.setdefault(key(point), {})[point.repeat] = slowdowns
    return found


def _repeats(one: Runs, two: Runs) -> list[int]:
    return sorted({repeat for runs in (one, two) for by in runs.values() for repeat in by})
