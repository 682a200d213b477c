"""Of which runs the accuracy of a system that knows when answers are due is told."""

from dynasor.bench.online_folder import PointResult
from dynasor.bench.online_plan import Point
from dynasor.bench.online_results import runs_held
from dynasor.bench.slo import Window
from dynasor.bench.workload import Arrival, Completion

UNLOADED = {"level 1": 1.0}


def run(rate, scale, late, repeat=0, queries=20):
    """One run, of which so many queries are answered after ten seconds, the others at once."""
    completions = tuple(
        Completion(
            Arrival(f"{number}", float(number), f"q{number}", "query", "level 1", scale),
            latency=10.0 if number < late else 0.5,
            first_service=None,
            correct=True,
            tokens=10,
            samples=1,
            reason="certain",
        )
        for number in range(queries)
    )
    window = Window(0.0, float(queries))
    return PointResult(Point("ours", rate, scale, repeat), window, completions, 20.0)


def test_rates_and_scales_that_were_not_held_are_left_out():
    slow, quick, tight = run(1, 5, late=0), run(8, 5, late=3), run(1, 0.6, late=10)
    assert runs_held([slow, quick, tight], UNLOADED) == [slow]


def test_repeats_count_together():
    pair = [run(4, 5, late=3), run(4, 5, late=0, repeat=1)]
    assert runs_held(pair, UNLOADED) == pair, "3 of 40 late"


def test_where_nothing_was_held_all_runs_are_told():
    hopeless = [run(8, 5, late=20), run(16, 5, late=20)]
    assert runs_held(hopeless, UNLOADED) == hopeless
