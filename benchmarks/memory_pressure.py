"""Little KV memory: preemptions and tokens computed twice, vLLM's order against gangs.

    python benchmarks/memory_pressure.py --queries 24 --kv-blocks 160

The same queries of the embedded suite, all samples of a query at once, on one engine a system; the
systems take turns. Prints a row a system and run, and the ratios of ours to vLLM's.
"""

import argparse
import asyncio
import json
import statistics
from time import monotonic

from algorithms.program import Sampling
from algorithms.self_consistency import SelfConsistency
from certaindex.answers import extract
from certaindex.groups import AnswerGroups, ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.offline import ask
from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.vllm import VLLMEngine
from dynasor.runtime import Runtime
from dynasor.scheduling.forecast import Forecast
from dynasor.suites import load_suite

SYSTEMS = {
    "vllm": SchedulerConfig(policy="vllm"),
    "gang-fcfs, as vLLM admits": SchedulerConfig(policy="gang-fcfs", fit_memory=False),
    "gang-fcfs": SchedulerConfig(policy="gang-fcfs"),
    "gang-srpt": SchedulerConfig(policy="gang-srpt"),
}


async def measure(scheduler: SchedulerConfig, options: argparse.Namespace) -> dict[str, float]:
    suite = load_suite("embedded", limit=options.queries)
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
                query.id,
                ask(query.question, ""),
                samples=options.samples,
                sampling=Sampling(max_tokens=512, seed=1000 * number),
                extract=lambda text: extract(text, "boxed"),
                groups=AnswerGroups(ExactEquivalence()),
            )
            for number, query in enumerate(suite.queries)
        ]
        allocator = PerQuery(rule, options.samples)
        runtime = Runtime(engine, allocator, forecast=Forecast(rule, 100.0))
        await engine.counters(reset=True)
        begin = monotonic()
        outcomes = [one async for one in runtime.run(programs, admission=len(programs))]
        seconds = monotonic() - begin
        counters = await engine.counters(reset=True)
    finally:
        await engine.close()
    return {
        "preemptions": counters["preemptions"],
        "recomputed_tokens": counters["recomputed_tokens"],
        "output_tokens": sum(one.bill.output for one in outcomes),
        "steps": counters["steps"],
        "kv_peak": counters["kv_peak"],
        "seconds": seconds,
        "mean_latency": statistics.mean(one.seconds for one in outcomes),
        "failed": sum(one.failed for one in outcomes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--kv-blocks", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
    for _ in range(options.repeats):
        for name, scheduler in SYSTEMS.items():
            row = asyncio.run(measure(scheduler, options))
            results[name].append(row)
            if not options.json:
                print(name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    if options.json:
        print(json.dumps(results))
        return
    base = results["vllm"]
    for name in list(SYSTEMS)[1:]:
        for key in ("preemptions", "recomputed_tokens", "mean_latency", "seconds"):
            ratios = [
                ours[key] / theirs[key] for ours, theirs in zip(results[name], base, strict=True)
            ]
            print(f"{name} / vllm, {key}: " + ", ".join(f"{ratio:.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
