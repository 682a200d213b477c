"""Which run comes next."""

import pytest

from dynasor import embedded_model
from dynasor.bench.online_plan import (
    Ladder,
    Point,
    live_scales,
    next_point,
    shares,
)
from dynasor.bench.online_profile import check_rates, check_scale
from dynasor.bench.systems import all_systems, choose_systems
from dynasor.errors import ConfigError
from dynasor.vote_weights import read_evidence

KNOWN = read_evidence(embedded_model.evidence())
SYSTEMS = {system.name: system for system in all_systems("default", 4, evidence=KNOWN)}
LADDER = Ladder(rates=(1, 2, 4, 8), scale=5, scale_rate=1, repeats=1, refine=0, scales=0)


def play(ladder, system, behave):
    """All runs of a system, where `behave(point)` gives the slowdowns of ten queries."""
    seen = {}
    while (point := next_point(ladder, SYSTEMS[system], seen)) is not None:
        assert point not in seen, "no run twice"
        seen[point] = behave(point)
    return seen


def late_above(limit):
    return lambda point: [1.0] * 10 if point.rate <= limit else [1.0] * 4 + [9.0] * 6


def test_rates_go_up_until_hardly_any_answer_is_in_time():
    seen = play(LADDER, "vanilla", late_above(2))
    assert [point.rate for point in seen] == [1, 2, 4]


def test_every_rate_is_repeated_before_the_next():
    seen = play(
        Ladder(**{**as_dict(LADDER), "repeats": 2, "rates": (1, 2)}), "vanilla", late_above(9)
    )
    assert list(seen) == [Point("vanilla", rate, 5, repeat) for rate in (1, 2) for repeat in (0, 1)]


def test_the_rate_at_which_scales_are_compared_is_always_run():
    ladder = Ladder(**{**as_dict(LADDER), "scale_rate": 4})
    assert [point.rate for point in play(ladder, "vanilla", late_above(0.5))] == [1, 2, 4]


def test_rates_are_refined_between_the_last_that_holds_and_the_next():
    ladder = Ladder(**{**as_dict(LADDER), "refine": 2})
    seen = play(ladder, "vanilla", late_above(2.5))
    assert [point.rate for point in seen] == [1, 2, 4, 2.83, 2.38]


def test_only_a_system_that_knows_deadlines_is_run_at_other_scales():
    ladder = Ladder(**{**as_dict(LADDER), "scales": 3, "rates": (1,)})

    def behave(point):
        return [0.9 * point.scale**0.5] * 10 if point.scale > 1.1 else [3.0] * 10

    assert {point.scale for point in play(ladder, "vanilla", behave)} == {5}
    seen = play(ladder, "+due", behave)
    # Told 5 it reaches 0.9 * sqrt(5) = 2.01; told that, 1.28; told that, 1.02, where it fails.
    assert [point.scale for point in seen] == [5, 2.01, 1.28, 1.02]
    assert live_scales(seen, "+due", 1) == {1.02: 0.0, 1.28: 1.0, 2.01: 1.0, 5: 1.0}


def test_after_a_scale_that_failed_one_between_is_tried():
    ladder = Ladder(**{**as_dict(LADDER), "scales": 2, "rates": (1,)})
    seen = play(ladder, "+due", lambda p: [1.25] * 10 if p.scale > 2 else [4.0] * 10)
    assert [point.scale for point in seen] == [5, 1.25, 2.5]


def test_repeats_count_together():
    seen = {Point("a", 1, 5, 0): [1.0] * 10, Point("a", 1, 5, 1): [1.0] * 5 + [9.0] * 5}
    assert shares(seen, "a", 5) == {1: 0.75}


def test_wrong_rates_and_scales_are_refused():
    assert check_rates([2, 1, 2]) == (1, 2)
    for rates in ([1, 0], [-2.0], [float("nan")], [float("inf")]):
        with pytest.raises(ConfigError, match="above 0"):
            check_rates(rates)
    with pytest.raises(ConfigError, match="empty"):
        check_rates([])
    for scale in (0.99, 0, -3, float("nan")):
        with pytest.raises(ConfigError, match="--slo-scale"):
            check_scale(scale)


def test_systems_are_chosen_by_name():
    known = tuple(SYSTEMS.values())
    assert [s.name for s in choose_systems(known, ["ours", "vanilla"])] == ["vanilla", "ours"]
    assert choose_systems(known, ["all"]) == list(known)
    with pytest.raises(ConfigError, match="--system magic"):
        choose_systems(known, ["magic"])


def as_dict(ladder):
    return {name: getattr(ladder, name) for name in Ladder.__slots__}


def test_rates_go_on_beyond_the_end_while_the_target_is_held():
    ladder = Ladder(**{**as_dict(LADDER), "rates": (1, 2), "open_end": True})
    assert [p.rate for p in play(ladder, "vanilla", late_above(4))] == [1, 2, 2.8, 3.92, 5.49]
    assert [p.rate for p in play(ladder, "vanilla", late_above(1))] == [1, 2]
    assert [p.rate for p in play(ladder, "vanilla", late_above(0.6))] == [1, 0.714, 0.51]
