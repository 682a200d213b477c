"""Intervals of the ratios, against what is known of the runs."""

import pytest

from dynasor.bench.online_plan import Point
from dynasor.bench.online_ratio import rate_ratio_interval, scale_ratio_interval
from dynasor.bench.systems import all_systems

SYSTEMS = {system.name: system for system in all_systems("default", 4, evidence=None)}
SCALE = 5


def runs(system, limit, repeat=0, queries=200):
    """In time up to a rate, then half of the queries."""
    return {
        Point(system, rate, SCALE, repeat): [1.0] * queries
        if rate <= limit
        else [1.0, 9.0] * (queries // 2)
        for rate in (1, 2, 4, 8)
    }


def test_the_interval_holds_the_ratio():
    seen = runs("vanilla", 1) | runs("ours", 4)
    low, high = rate_ratio_interval(seen, "ours", "vanilla", SCALE)
    # 90% between 100% at the limit and 50% at twice the limit: both at 1.2 times their limits.
    assert low < 4 < high
    assert high - low < 1


def test_a_machine_that_slows_both_sides_does_not_widen_the_ratio():
    quick = runs("vanilla", 2) | runs("ours", 4)
    slow = runs("vanilla", 1, 1) | runs("ours", 2, 1)
    low, high = rate_ratio_interval(quick | slow, "ours", "vanilla", SCALE)
    assert low == pytest.approx(2, rel=0.15)
    assert high == pytest.approx(2, rel=0.15)


def test_repeats_that_differ_widen_it():
    steady = runs("vanilla", 1) | runs("ours", 4) | runs("vanilla", 1, 1) | runs("ours", 4, 1)
    moody = runs("vanilla", 1) | runs("ours", 2) | runs("vanilla", 1, 1) | runs("ours", 8, 1)
    widths = []
    for seen in (steady, moody):
        low, high = rate_ratio_interval(seen, "ours", "vanilla", SCALE)
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_without_a_rate_that_holds_there_is_none():
    assert rate_ratio_interval({}, "ours", "vanilla", SCALE) is None
    late = {Point("vanilla", 1, SCALE, 0): [9.0] * 50} | runs("ours", 4)
    assert rate_ratio_interval(late, "ours", "vanilla", SCALE) is None


def test_scales_of_a_system_that_is_told_come_from_its_own_runs():
    seen = {Point("vanilla", 1, SCALE, 0): [4.0] * 95 + [9.0] * 5}
    for told in (5, 2, 1):
        late = 0 if told >= 2 else 50
        seen[Point("+due", 1, told, 0)] = [0.5] * (100 - late) + [9.0] * late
    low, high = scale_ratio_interval(seen, SYSTEMS["+due"], SYSTEMS["vanilla"], 1, SCALE)
    # Vanilla needs 4; the other holds 90% at 1.8, between 100% at 2 and 50% at 1.
    assert low < 4 / 1.8 < high
    assert high < 4
