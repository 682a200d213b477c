"""Which replica a request goes to, in virtual time."""

from dataclasses import replace

import pytest

from certaindex.stopping import parse_rule
from dynasor.bench.simulation import simulate
from dynasor.bench.virtual_router import ROUTINGS
from dynasor.bench.workload import Arrival
from dynasor.scheduling.forecast import Forecast
from tests.dynasor.simulated_traffic import arrivals, cluster, fixed, one, questions


@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_routing_answers_all_and_leaves_nothing(routing):
    trace = questions(3)
    coming = list(arrivals(40, list(trace), rate=0.3, seed=3))
    busy = replace(cluster(4, max_running=2), routing=routing)
    result = simulate(
        coming, trace, busy, fixed(8, 4), samples=8, forecast=Forecast(parse_rule("fixed:8"))
    )
    assert sorted(done.arrival.id for done in result.completions) == sorted(a.id for a in coming)
    # Work is conserved: where it runs changes latencies only.
    least = simulate(coming, trace, cluster(4, max_running=2), fixed(8, 4), samples=8)
    assert sum(d.tokens for d in result.completions) == sum(d.tokens for d in least.completions)


def test_a_gang_stays_together_until_its_home_is_full():
    rows = one([10] * 4, ["7"] * 4)
    lone = [Arrival("a", 0.0, "q", "query", "g", None)]

    def steps(routing, places):
        fleet = replace(cluster(2, max_running=places), routing=routing)
        result = simulate(lone, rows, fleet, fixed(4, 4), samples=4)
        return sorted(each.steps for each in result.replicas), result.completions[0].latency

    assert steps("two-choices", 4) == ([0, 10], 10)
    assert steps("two-choices", 2) == ([10, 10], 10)  # split, since that ends it sooner
    assert steps("least-expected", 2) == ([0, 20], 20)
    assert steps("round-robin", 4) == ([10, 10], 10)


def test_with_one_queue_no_place_is_free_while_something_waits():
    rows = one([10] * 4, ["7"] * 4)
    burst = [Arrival(f"a{n}", 0.0, "q", "query", "g", None) for n in range(6)]
    fleet = replace(cluster(3, max_running=2), routing="single-queue")
    result = simulate(burst, rows, fleet, fixed(4, 4), samples=4)
    assert [each.steps for each in result.replicas] == [40, 40, 40]  # 24 samples, 6 places
    assert result.seconds == 40
