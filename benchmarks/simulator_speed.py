"""How fast the simulator is: many queries of recorded traces on many replicas, on one core.

python benchmarks/simulator_speed.py TRACE... [--queries 100000] [--replicas 64] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import quantiles
from time import process_time
from typing import Literal

from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import RecordedQuestion, collect_questions
from dynasor.bench.simulation import Cluster, Simulated, simulate
from dynasor.bench.workload import Arrival
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.queue import Aging
from dynasor.traces import read_traces

H100_LIKE = StepTime(0.012, 1e-4, 3e-5, 1e-8)
"""An 8-billion-parameter model on one large GPU, roughly: the speed of the simulator hardly asks."""


def main() -> None:
    arguments = _arguments()
    questions: dict[str, RecordedQuestion] = {}
    for path in arguments.traces:
        for name, question in collect_questions(read_traces(path)).items():
            questions[f"{Path(path).name}/{name}"] = question
    settings = ReplicaSettings(
        H100_LIKE, max_running=arguments.max_running, kv_blocks=arguments.kv_blocks
    )
    cluster = Cluster(settings, arguments.replicas, per_request=0.002)
    rule = parse_rule(arguments.rule)
    profile = cProfile.Profile() if arguments.profile else None
    begin = process_time()
    if profile:
        profile.enable()
    result = simulate(
        _workload(arguments, sorted(questions)),
        questions,
        cluster,
        PerQuery(rule, arguments.wave),
        samples=arguments.samples,
        policy=arguments.policy,
        aging=Aging(),
        forecast=Forecast(rule),
        progress=lambda done: (
            print(f"{done} queries, {process_time() - begin:.0f} s", flush=True)
            if done % 10_000 == 0
            else None
        ),
    )
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    _report(result, process_time() - begin)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+")
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="queries a second; 0: one for 16 replicas"
    )
    parser.add_argument("--rule", default="default")
    parser.add_argument("--wave", type=int, default=4)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--policy", default="default")
    parser.add_argument("--max-running", type=int, default=128)
    parser.add_argument("--kv-blocks", type=int, default=30_000)
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def _workload(arguments: argparse.Namespace, names: list[str]) -> Iterator[Arrival]:
    """Poisson arrivals; one in ten is a chat."""
    draw = random.Random(1)
    rate = arguments.rate or arguments.replicas / 16
    time = 0.0
    for number in range(arguments.queries):
        time += draw.expovariate(rate)
        kind: Literal["chat", "query"] = "chat" if draw.random() < 0.1 else "query"
        yield Arrival(f"q{number}", time, draw.choice(names), kind, kind, 600.0)


def _report(result: Simulated, seconds: float) -> None:
    latencies = [done.latency for done in result.completions]
    deciles = quantiles(latencies, n=10)
    queries = len(result.completions)
    shown = {
        "wall_seconds": round(seconds, 1),
        "queries_a_second": round(queries / seconds, 1),
        "queries": queries,
        "samples": sum(done.samples for done in result.completions),
        "tokens": sum(done.tokens for done in result.completions),
        "virtual_seconds": round(result.seconds),
        "latency_mean": round(sum(latencies) / queries, 1),
        "latency_p50": round(deciles[4], 1),
        "latency_p90": round(deciles[8], 1),
        "peak_memory_mib": getrusage(RUSAGE_SELF).ru_maxrss // 1024,
        **{name: round(value, 3) for name, value in result.counters().items()},
    }
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
