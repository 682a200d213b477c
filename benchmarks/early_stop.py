"""How soon a query that is cut has left the engine: python benchmarks/early_stop.py [--repeats 20]

A real engine with 16 places: 8 requests of another query decode, and a query of 16 samples has 8 that
run and 8 that wait. It is cut while it decodes. Steps are counted between the call and the moment at
which all its requests have ended and the scheduler has been asked again; the asking itself lets a step
or two pass, so the figures are upper bounds.
"""

import argparse
import asyncio
import json
import statistics

from algorithms.program import Progress, Request, Sampling
from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.vllm import VLLMEngine
from dynasor.suites import load_suite

LONG = next(query for query in load_suite("embedded").queries if query.meta["level"] == 5)
PROMPT = ({"role": "user", "content": LONG.question},)  # some 180 tokens until its answer


async def drain(engine: VLLMEngine, request: Request, decodes: asyncio.Event) -> None:
    async for event in engine.submit(request):
        if isinstance(event, Progress):
            decodes.set()


def begin(
    engine: VLLMEngine, gang: str, count: int
) -> tuple[list[str], list[asyncio.Task[None]], asyncio.Event]:
    decodes = asyncio.Event()
    names = [f"{gang}#{index}" for index in range(count)]
    tasks = [
        asyncio.create_task(
            drain(engine, Request(name, gang, PROMPT, Sampling(), report_every=5), decodes)
        )
        for name in names
    ]
    return names, tasks, decodes


async def cut_once(engine: VLLMEngine, number: int) -> dict[str, float]:
    others, other_tasks, going = begin(engine, f"others{number}", 8)
    await going.wait()
    names, tasks, going = begin(engine, f"victim{number}", 16)
    await going.wait()
    before = await engine.counters()
    await engine.abort(names)
    await asyncio.gather(*tasks)
    after = await engine.counters()
    await engine.abort(others)
    await asyncio.gather(*other_tasks)
    idle = await engine.counters()
    return {
        "steps": after["steps"] - before["steps"],
        "running_before": before["running"],
        "waiting_before": before["waiting"],
        "running_after": after["running"],
        "waiting_after": after["waiting"],
        "kv_before": before["kv_now"],
        "kv_after": after["kv_now"],
        "kv_idle": idle["kv_now"],
    }


async def measure(repeats: int) -> list[dict[str, float]]:
    engine = VLLMEngine(
        str(embedded_model()), max_running=16, kv_gib=1, max_model_len=1024,
        scheduler=SchedulerConfig(policy="default"),
    )  # fmt: skip
    await engine.start()
    try:
        return [await cut_once(engine, number) for number in range(repeats)]
    finally:
        await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.repeats))
    if arguments.json:
        print(json.dumps(rows))
        return
    steps = [row["steps"] for row in rows]
    print(f"steps until gone: median {statistics.median(steps):g}, most {max(steps):g}")
    for when in ("before", "after"):
        cells = [
            f"{n} {statistics.mean(r[f'{n}_{when}'] for r in rows):.1f}"
            for n in ("running", "waiting")
        ]
        kv = statistics.mean(row[f"kv_{when}"] for row in rows)
        print(f"{when} the cut: {', '.join(cells)} requests, {kv:.2%} of the KV memory")
    print(f"with nothing left: {max(row['kv_idle'] for row in rows):.2%} of the KV memory at most")


if __name__ == "__main__":
    main()
