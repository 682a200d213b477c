"""Routing rules on 4 to 256 simulated replicas against one perfect queue, and what a decision costs.

python benchmarks/routing.py TRACE... [--replicas 4,16,64,256] [--load 0.95] [--json]
python benchmarks/routing.py --cost [--replicas 4,16,64,256]

Virtual time: the real programs, allocator, gang policy and routing rule on simulated replicas of an
8-billion-parameter model. Each fleet serves the same arrivals per replica under every rule. The load is
a share of what one replica does under saturation. A query is in time if it takes no longer than --slo
times its question alone on one replica. Ratios are to the single queue, paired by query, with bootstrap
intervals. --cost measures processor time of this process a decision: of the rule with its account, of
the whole router in Ray Serve, whose replicas are stand-ins here, and of the global view, a report of one
of as many endpoints. With --keep FILE what was simulated is kept there, and the same command goes on
where it was (give it the same other options).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from types import SimpleNamespace
from typing import Any

import numpy as np

from algorithms.program import Request, Sampling
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import RecordedQuestion, collect_questions
from dynasor.bench.simulation import Cluster, Simulated, simulate
from dynasor.bench.virtual_router import ROUTINGS, Routing
from dynasor.bench.workload import Arrival
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.intervals import bootstrap
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.placements import Placements
from dynasor.scheduling.queue import Aging
from dynasor.traces import read_traces
from serving.admission_share import GlobalView

H100_LIKE = StepTime(0.012, 1e-4, 3e-5, 1e-8)
REFERENCE: Routing = "single-queue"
SHARED = 16  # places of a replica: so few that queues form
WARM_UP = 0.2  # part of the arrivals that does not count, at the begin and at the end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", nargs="*")
    parser.add_argument("--replicas", default="4,16,64,256")
    parser.add_argument("--queries", type=int, default=24, help="for each replica")
    parser.add_argument("--least", type=int, default=600, help="queries, however few replicas")
    parser.add_argument("--load", type=float, default=0.95)
    parser.add_argument("--slo", type=float, default=2.0)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--wave", type=int, default=8)
    parser.add_argument("--places", type=int, default=SHARED)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = [int(size) for size in options.replicas.split(",")]
    rows = [cost(size) for size in sizes] if options.cost else list(compare(options, sizes))
    if options.json:
        print(json.dumps(rows))


def compare(options: argparse.Namespace, sizes: list[int]) -> Iterator[dict[str, Any]]:
    questions: dict[str, RecordedQuestion] = {}
    for path in options.traces:
        for name, question in collect_questions(read_traces(path)).items():
            questions[f"{Path(path).name}/{name}"] = question
    replica = ReplicaSettings(H100_LIKE, max_running=options.places, kv_blocks=30_000)
    one = Cluster(replica, 1, per_request=0.002)
    kept: dict[str, Any] = {}
    if options.keep is not None and options.keep.exists():
        kept = json.loads(options.keep.read_text())
    if "alone" not in kept:
        kept["alone"] = _alone(options, questions, one)
        kept["capacity"] = _capacity(options, questions, one)
        _keep(options, kept)
    alone, rate = kept["alone"], options.load * kept["capacity"]
    print(f"{rate:.4f} queries a second for each replica")
    for size in sizes:
        coming = list(_workload(options, sorted(questions), rate * size, size, alone))
        ends: dict[str, dict[str, tuple[float, bool]]] = {}
        for routing in sorted(ROUTINGS, key=lambda name: name != REFERENCE):
            if (name := f"{size} {routing}") not in kept:
                cluster = replace(one, replicas=size, routing=routing)
                result = _serve(options, questions, cluster, coming)
                kept[name] = {c.arrival.id: (c.latency, c.met) for c in result.completions}
                _keep(options, kept)
            ends[routing] = kept[name]
            yield _row(size, routing, ends[routing], ends[REFERENCE], coming)


def _keep(options: argparse.Namespace, kept: dict[str, Any]) -> None:
    if options.keep is not None:
        options.keep.write_text(json.dumps(kept))


def _row(
    size: int,
    routing: str,
    ends: Mapping[str, tuple[float, bool]],
    best: Mapping[str, tuple[float, bool]],
    coming: list[Arrival],
) -> dict[str, Any]:
    """Latency and attainment of one rule on one fleet, printed."""
    skip = round(WARM_UP * len(coming))
    names = [arrival.id for arrival in coming[skip : len(coming) - skip]]
    latency = np.array([ends[name][0] for name in names])
    reference = np.array([best[name][0] for name in names])
    met = np.array([float(ends[name][1]) for name in names])
    low, high = bootstrap(latency, reference)
    row = {
        "replicas": size,
        "routing": routing,
        "queries": len(names),
        "mean": float(latency.mean()),
        "p50": float(np.quantile(latency, 0.5)),
        "p95": float(np.quantile(latency, 0.95)),
        "attainment": float(met.mean()),
        "mean_ratio": float(latency.mean() / reference.mean()),
        "interval": (low, high),
    }
    print(
        f"{size:4d} {routing:15s} mean {row['mean']:7.1f} s  p95 {row['p95']:7.1f} s  "
        f"in time {row['attainment']:6.1%}  mean x {row['mean_ratio']:.3f} ({low:.3f}, {high:.3f})",
        flush=True,
    )
    return row


def _serve(
    options: argparse.Namespace,
    questions: Mapping[str, RecordedQuestion],
    cluster: Cluster,
    coming: list[Arrival],
) -> Simulated:
    rule = parse_rule("default")
    return simulate(
        coming,
        questions,
        cluster,
        PerQuery(rule, options.wave),
        samples=options.samples,
        aging=Aging(),
        forecast=Forecast(rule),
    )


def _alone(
    options: argparse.Namespace, questions: Mapping[str, RecordedQuestion], one: Cluster
) -> dict[str, float]:
    """Median latency of each question alone on one replica, of three draws."""
    names = [name for name in questions for _ in range(3)]
    lone = [Arrival(f"{n}", 1e7 * n, q, "query", "q", None) for n, q in enumerate(names)]
    found: dict[str, list[float]] = {}
    for end in _serve(options, questions, one, lone).completions:
        found.setdefault(end.arrival.question, []).append(end.latency)
    return {name: median(values) for name, values in found.items()}


def _capacity(
    options: argparse.Namespace, questions: Mapping[str, RecordedQuestion], one: Cluster
) -> float:
    """Queries a second of one replica whose queue never empties."""
    names = sorted(questions)
    random.Random(0).shuffle(names)
    crowd = [Arrival(f"{n}", 0.0, q, "query", "q", None) for n, q in enumerate((3 * names)[:300])]
    ends = sorted(end.latency for end in _serve(options, questions, one, crowd).completions)
    counted = ends[: round(0.7 * len(ends))]
    return len(counted) / counted[-1]


def _workload(
    options: argparse.Namespace,
    names: list[str],
    rate: float,
    size: int,
    alone: Mapping[str, float],
) -> Iterator[Arrival]:
    """Poisson arrivals with deadlines."""
    draw = random.Random(size)
    time = 0.0
    for number in range(max(options.least, options.queries * size)):
        time += draw.expovariate(rate)
        question = draw.choice(names)
        yield Arrival(f"q{number}", time, question, "query", "q", options.slo * alone[question])


def cost(size: int, requests: int = 20_000, repeats: int = 5) -> dict[str, Any]:
    """Microseconds of a decision: of a request with 16 in each replica, of an endpoint's report."""
    row: dict[str, Any] = {"replicas": size}
    for name, served in (
        ("rule", _rule_cost),
        ("Ray router", _router_cost),
        ("global view", _view_cost),
    ):
        taken = [served(size, requests, seed) for seed in range(repeats)]
        row[name] = [1e6 * each for each in taken]
        middle = median(row[name])
        print(
            f"{size:4d} replicas, {name:11s}: {middle:6.1f} us a decision ({min(row[name]):.1f} to "
            f"{max(row[name]):.1f}), so one decides on {1e6 / middle:,.0f} a second",
            flush=True,
        )
    return row


def _asked(requests: int) -> list[Request]:
    """Gangs of eight with prompts of some 200 tokens."""
    prompts = [f"question {n} ".ljust(800) for n in range(requests // 8)]
    return [Request(f"{n}", f"g{n // 8}", prompts[n // 8], Sampling()) for n in range(requests)]


def _rule_cost(size: int, requests: int, seed: int) -> float:
    """Seconds of a request: its placement, a hint, and its end."""
    placements = Placements(seed)
    for _ in range(size):
        placements.add(SHARED)
    flying, asked = SHARED * size, _asked(requests)
    for request in asked[:flying]:
        placements.place(request)
    begin = process_time()
    for number, request in enumerate(asked[flying:]):
        placements.place(request)
        placements.hint(request.program, 1000.0 + number % 7)
        placements.end(f"{number}", 300)
    return (process_time() - begin) / (requests - flying)


def _router_cost(size: int, requests: int, seed: int) -> float:
    """Seconds of a request in the router of Ray Serve: the choice of its replica, and its end.

    Serve's own work around it (finding that the replica takes the request, sending it) is not counted.
    """
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID
    from ray.serve.request_router import ReplicaID

    from dynasor.engines.ray_router import GangRouter

    class Replica(SimpleNamespace):
        async def get_queue_len(self, *, deadline_s: float) -> int:
            return 0

    async def route_all() -> float:
        engines = DeploymentID(name="engines", app_name="cost")
        router = GangRouter(engines, DeploymentHandleSource.UNKNOWN)
        router.initialize_state(places=SHARED)
        replicas = [Replica(replica_id=ReplicaID(f"r{n}", engines)) for n in range(size)]
        router.update_replicas(replicas)
        await asyncio.sleep(0)
        calls = [
            SimpleNamespace(
                args=(request, Hints(tokens=1000.0 + number % 7)),
                kwargs={"author": None, "avoid": []},
                metadata=SimpleNamespace(call_method="generate", internal_request_id=f"{number}"),
            )
            for number, request in enumerate(_asked(requests))
        ]
        flying = SHARED * size
        for call in calls[:flying]:
            await router.choose_replicas(replicas, call)
        begin = process_time()
        for number, call in enumerate(calls[flying:]):
            await router.choose_replicas(replicas, call)
            router.on_request_completed(None, f"{number}")
        return (process_time() - begin) / (requests - flying)

    del seed
    return asyncio.run(route_all())


def _view_cost(size: int, requests: int, seed: int) -> float:
    """Seconds of a report to the global view, with as many endpoints as replicas."""
    view = GlobalView()
    names = [f"endpoint{number}" for number in range(size)]
    reports = requests // 10
    for name in names:
        view.report(name, 100, 1e5, 256, 256 * size, None)
    begin = process_time()
    for number in range(reports):
        view.report(names[number % size], 100 + (number + seed) % 7, 1e5, 256, 256 * size, None)
    return (process_time() - begin) / reports


if __name__ == "__main__":
    main()
