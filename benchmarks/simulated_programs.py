"""Programs under load on a simulated engine: self-consistency, short-m-of-k and DeepConf.

    python benchmarks/roofline_calibration.py nemotron-nano-9b-v2 --out gpu.json
    python benchmarks/simulated_programs.py gpu.json MATH.jsonl.gz --samples 16

The same arrivals (Poisson, at `--load` times what self-consistency of the full budget can serve) for
all, under one scheduling policy and the allocator. Prints accuracy, tokens, and mean and 90th
percentile of the latency, against self-consistency under the same policy. DeepConf is left out where
the trace lacks the confidence of each token.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from algorithms.deepconf import Confidence, DeepConf
from algorithms.short_m_of_k import ShortMOfK
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import BuildProgram, collect_questions, self_consistency
from dynasor.bench.simulation import Cluster, Simulated, simulate
from dynasor.bench.workload import Arrival
from dynasor.engines.calibration import Calibration
from dynasor.intervals import bootstrap
from dynasor.traces import read_traces


class System(NamedTuple):
    name: str
    build: BuildProgram
    rule: str
    wave: int


def systems(n: int, group: int, *, confident: bool) -> list[System]:
    rows = [
        System("self-consistency", self_consistency(), "never", n),
        System("self-consistency, default rule", self_consistency(), "default", max(1, n // 4)),
    ]
    rows += [
        System(f"short-{m}-of-{n}", _short(m), "never", n) for m in (n // 4, n // 2, 3 * n // 4)
    ]
    if confident:
        for keep in (0.9, 0.5):
            sure = Confidence(keep=keep, warm_up=n // 4, group=group, tail=group, report_every=8)
            name = f"DeepConf online, keep {keep:g}"
            rows.append(System(name, _deepconf(sure), f"consensus:0.95,min={n // 4}", n))
    return rows


def _short(first: int) -> BuildProgram:
    return lambda task, n: ShortMOfK(task, first=first, samples=n)


def _deepconf(sure: Confidence) -> BuildProgram:
    return lambda task, n: DeepConf(task, samples=n, confidence=sure)


def poisson(names: list[str], count: int, rate: float, seed: int) -> list[Arrival]:
    draw = random.Random(seed)
    time, arrivals = 0.0, []
    for number in range(count):
        time += draw.expovariate(rate)
        question = names[number % len(names)]
        arrivals.append(Arrival(f"a{number}", time, question, "query", "all", None))
    return arrivals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--load", type=float, default=0.7)
    parser.add_argument("--policy", default="gang-fcfs")
    parser.add_argument("--group", type=int, default=64, help="tokens a group of DeepConf")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    questions = collect_questions(read_traces(options.trace))
    names = random.Random(options.seed).sample(sorted(questions), len(questions))
    cluster = Cluster(Calibration.read(options.calibration).replica())
    confident = all(question.query.confidence for question in questions.values())

    def serve(system: System, arrivals: list[Arrival]) -> Simulated:
        return simulate(
            arrivals,
            questions,
            cluster,
            PerQuery(parse_rule(system.rule), system.wave),
            samples=options.samples,
            policy=options.policy,
            program=system.build,
            seed=options.seed,
        )

    known = systems(options.samples, options.group, confident=confident)
    crowd = poisson(names, options.queries, 1e9, options.seed)
    capacity = options.queries / serve(known[0], crowd).seconds
    arrivals = poisson(names, options.queries, options.load * capacity, options.seed)
    print(f"{options.queries} queries, {options.load * capacity:.3g} a second, {options.policy}\n")
    print("| program | accuracy, % | change, points | tokens of full | mean latency | p90 |")
    print("|---|---|---|---|---|---|")
    full: np.ndarray | None = None
    for system in known:
        ended = {done.arrival.id: done for done in serve(system, arrivals).completions}
        table = np.array(
            [[ended[a.id].correct, ended[a.id].tokens, ended[a.id].latency] for a in arrivals],
            dtype=float,
        )
        full = table if full is None else full
        low, high = bootstrap(100 * (table[:, 0] - full[:, 0]))
        ratio = bootstrap(table[:, 2], full[:, 2])
        print(
            f"| {system.name} | {100 * table[:, 0].mean():.1f} "
            f"| {100 * (table[:, 0] - full[:, 0]).mean():+.1f} [{low:+.1f}, {high:+.1f}] "
            f"| {table[:, 1].sum() / full[:, 1].sum():.1%} "
            f"| {table[:, 2].sum() / full[:, 2].sum():.1%} [{ratio[0]:.1%}, {ratio[1]:.1%}] "
            f"| {np.quantile(table[:, 2], 0.9) / np.quantile(full[:, 2], 0.9):.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
