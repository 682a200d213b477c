"""Little KV memory: preemptions and tokens computed twice, vLLM's order against gangs.

    python benchmarks/memory_pressure.py --repeats 4                       # real vLLM, embedded model
    python benchmarks/memory_pressure.py --repeats 100 --simulated CALIBRATION --traces SAMPLES

The same queries for all systems, all at once and all samples of a query at once; each repeat takes
other queries and samples, and the systems take turns, forwards and then backwards. Prints for each
system the mean of a repeat and the ratio to vLLM's order, with a 95% interval over redrawn repeats.
Simulated: recorded samples, of the embedded suite or any other, in place of the engine.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np

from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.recorded import RecordedQuestion, collect_questions
from dynasor.bench.simulation import VLLM, Cluster, simulate
from dynasor.bench.workload import Arrival
from dynasor.config import SchedulerConfig
from dynasor.engines.calibration import Calibration
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.intervals import bootstrap
from dynasor.scheduling.aging import aging_of
from dynasor.scheduling.forecast import Forecast
from dynasor.traces import read_traces

SYSTEMS = {
    "vllm": SchedulerConfig(policy="vllm"),
    "gang-fcfs, as vLLM admits": SchedulerConfig(policy="gang-fcfs", fit_memory=False),
    "gang-fcfs": SchedulerConfig(policy="gang-fcfs"),
    "gang-srpt, as vLLM admits": SchedulerConfig(policy="gang-srpt", fit_memory=False),
    "gang-srpt": SchedulerConfig(policy="gang-srpt"),
}
MEASURES = ("preemptions", "recomputed_tokens", "steps", "mean_latency", "seconds")
EXPECTED = 100.0
"""Tokens of a sample, before any has ended."""
Row = dict[str, float]


async def live(scheduler: SchedulerConfig, repeat: int, options: argparse.Namespace) -> Row:
    """One repeat on the real engine."""
    from algorithms.program import Sampling
    from algorithms.self_consistency import SelfConsistency
    from algorithms.task import Task
    from certaindex.answers import extract
    from certaindex.groups import AnswerGroups, ExactEquivalence
    from dynasor.bench.offline import ask
    from dynasor.embedded_model import path as embedded_model
    from dynasor.engines.vllm import VLLMEngine
    from dynasor.runtime import Runtime
    from dynasor.suites import load_suite

    suite = load_suite("embedded")
    chosen = random.Random(repeat).sample(suite.queries, options.queries)
    rule = parse_rule(f"fixed:{options.samples}")
    engine = VLLMEngine(
        str(embedded_model()),
        max_running=options.slots,
        kv_gib=1,
        kv_blocks=options.kv_blocks,
        max_model_len=1024,
        scheduler=scheduler,
    )
    await engine.start()
    try:
        programs = [
            SelfConsistency(
                Task(
                    query.id,
                    ask(query.question, ""),
                    sampling=Sampling(
                        max_tokens=512, seed=1000 * (options.queries * repeat + number)
                    ),
                    extract=lambda text: extract(text, "boxed"),
                    groups=AnswerGroups(ExactEquivalence()),
                ),
                samples=options.samples,
            )
            for number, query in enumerate(chosen)
        ]
        runtime = Runtime(
            engine, PerQuery(rule, options.samples), forecast=Forecast(rule, EXPECTED)
        )
        await engine.counters(reset=True)
        begin = monotonic()
        outcomes = [one async for one in runtime.run(programs, admission=len(programs))]
        seconds = monotonic() - begin
        counters = await engine.counters(reset=True)
    finally:
        await engine.close()
    return {
        **{name: counters[name] for name in ("preemptions", "recomputed_tokens", "steps")},
        "output_tokens": sum(one.bill.output for one in outcomes),
        "mean_latency": float(np.mean([one.seconds for one in outcomes])),
        "seconds": seconds,
    }


def simulated(
    scheduler: SchedulerConfig,
    repeat: int,
    options: argparse.Namespace,
    calibration: Calibration,
    questions: dict[str, RecordedQuestion],
) -> Row:
    """One repeat in virtual time."""
    rule = parse_rule(f"fixed:{options.samples}")
    chosen = random.Random(repeat).sample(sorted(questions), options.queries)
    replica = ReplicaSettings(
        calibration.step_time,
        max_running=options.slots,
        max_batched_tokens=calibration.max_batched_tokens,
        kv_blocks=options.kv_blocks,
        block_size=options.block_size,
        fit_memory=scheduler.fit_memory and scheduler.policy != VLLM,
    )
    ended = simulate(
        [Arrival(name, 0.0, name, "query", "query", None) for name in chosen],
        questions,
        Cluster(replica, per_request=calibration.per_request),
        PerQuery(rule, options.samples),
        samples=options.samples,
        policy=scheduler.policy,
        aging=aging_of(scheduler),
        forecast=Forecast(rule, EXPECTED),
        seed=repeat,
    )
    counters = ended.counters()
    return {
        **{name: counters[name] for name in ("preemptions", "recomputed_tokens", "steps")},
        "output_tokens": sum(one.tokens for one in ended.completions),
        "mean_latency": float(np.mean([one.latency for one in ended.completions])),
        "seconds": ended.seconds,
    }


def take_turns(
    repeats: int, measure: Callable[[SchedulerConfig, int], Row], show: bool
) -> dict[str, list[Row]]:
    """All systems in each repeat, in one order and then in the reverse."""
    results: dict[str, list[Row]] = {name: [] for name in SYSTEMS}
    for repeat in range(repeats):
        order = list(SYSTEMS) if repeat % 2 == 0 else list(SYSTEMS)[::-1]
        for name in order:
            row = measure(SYSTEMS[name], repeat)
            results[name].append(row)
            if show:
                print(
                    repeat, name, {key: round(value, 2) for key, value in row.items()}, flush=True
                )
    return results


def summary_of(results: dict[str, list[Row]]) -> dict[str, dict[str, dict[str, object]]]:
    """System -> measure -> mean of a repeat, ratio to vLLM's order and its interval."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for name, rows in results.items():
        found[name] = {}
        for measure in MEASURES:
            one = np.array([row[measure] for row in rows], dtype=float)
            two = np.array([row[measure] for row in results["vllm"]], dtype=float)
            ratio = float(one.mean() / two.mean()) if two.any() else None
            found[name][measure] = {
                "mean": float(one.mean()),
                "ratio": ratio,
                "interval": None if ratio is None else bootstrap(one, two),
            }
    return found


def main() -> None:
    options = _options()
    if options.simulated:
        calibration = Calibration.read(options.simulated)
        questions = collect_questions(read_traces(options.traces))
        results = take_turns(
            options.repeats,
            lambda scheduler, repeat: simulated(scheduler, repeat, options, calibration, questions),
            show=False,
        )
    else:
        results = take_turns(
            options.repeats,
            lambda scheduler, repeat: asyncio.run(live(scheduler, repeat, options)),
            show=not options.json,
        )
    found = summary_of(results)
    if options.json:
        print(json.dumps({"repeats": results, "summary": found}))
        return
    for name, measures in found.items():
        print(name)
        for measure, figures in measures.items():
            low, high = figures["interval"] or (float("nan"), float("nan"))
            print(
                f"    {measure:<18} {figures['mean']:>10.1f}   x {figures['ratio'] or 0:.2f} "
                f"[{low:.2f}, {high:.2f}]"
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--kv-blocks", type=int, default=160)
    parser.add_argument("--block-size", type=int, default=32, help="simulated blocks, tokens")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--simulated", type=Path, help="calibration file; needs --traces")
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.simulated and not options.traces:
        parser.error("--simulated needs --traces")
    return options


if __name__ == "__main__":
    main()
