"""What one request costs an endpoint and a replica on real Ray Serve, whose engine does nothing.

python -m benchmarks.handle_cost [--requests 2000] [--replicas 2] [--events 1,16] [--out FILE]

Processor time of the process that sends the requests (`RayServeEngine`, the handle, the router with its
rule) and of those of the replicas, for each request. `--events` are the parts that a request streams:
one is its end only. Told is the median with the least and the most of all repeats, and how many requests
a second so fill one core of the sender: with several endpoints each has a process of its own. What the
decision itself takes is in `benchmarks/routing.py --cost`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import psutil
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from algorithms.program import Event, Generation, Progress, Request, Sampling
from dynasor.engines.base import Capacity
from dynasor.engines.ray_serve import RayServeEngine
from serving.ray_app import ENVIRONMENT

PLACES = 16
AT_ONCE = 64
GANG = 8
PROMPT = "a question of some length ".ljust(800)


class Idle:
    """Stands for `EngineReplica`: answers at once."""

    async def generate(
        self, request: Request, hints: Any, **_: Any
    ) -> AsyncGenerator[str | Event, None]:
        yield serve.get_replica_context().replica_id.unique_id
        for number in range(1, request.sampling.max_tokens):
            yield Progress(request.id, "x" * number, number)
        yield Generation(request.id, "x", request.sampling.max_tokens)

    async def tell(self, news: Any, **_: Any) -> None:
        pass

    async def capacity(self) -> Capacity:
        return Capacity(PLACES, "idle", supports_seed=True)


def replicas() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [each for each in children if "ServeReplica" in each.name() + " ".join(each.cmdline())]


def computed(processes: list[psutil.Process]) -> float:
    """Seconds of processor time of all of them."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def measure(
    engine: RayServeEngine, events: int, options: argparse.Namespace
) -> list[tuple[float, float]]:
    """Seconds a request, of this process and of the replicas, for each repeat; the first warms up."""
    processes = replicas()
    room = asyncio.Semaphore(AT_ONCE)
    found = []
    for repeat in range(options.repeats + 1):

        async def one(number: int, repeat: int = repeat) -> None:
            async with room:
                gang = f"{events}-{repeat}-{number // GANG}"
                sampling = Sampling(max_tokens=events)
                request = Request(f"{gang}#{number}", gang, PROMPT, sampling, report_every=1)
                async for event in engine.submit(request):
                    if isinstance(event, Generation) and event.finish_reason == "error":
                        raise RuntimeError(event.error)

        mine, theirs = process_time(), computed(processes)
        await asyncio.gather(*(one(number) for number in range(options.requests)))
        found.append(
            (
                (process_time() - mine) / options.requests,
                (computed(processes) - theirs) / options.requests,
            )
        )
    return found[1:]


async def measure_all(handle: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds a request for each number of events, printed."""
    engine = RayServeEngine(handle)
    await engine.start()
    rows = []
    for events in (int(each) for each in options.events.split(",")):
        taken = await measure(engine, events, options)
        row: dict[str, Any] = {"events": events, "requests": options.requests}
        for name, values in zip(("sender", "replicas"), zip(*taken, strict=True), strict=True):
            row[name] = [1e3 * value for value in values]
            middle = median(row[name])
            print(
                f"{events:3d} events a request, {name:8s}: {middle:.2f} ms a request "
                f"({min(row[name]):.2f} to {max(row[name]):.2f}), so one core does "
                f"{1e3 / middle:,.0f} a second",
                flush=True,
            )
        rows.append(row)
    await engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--events", default="1,16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local", num_cpus=options.replicas, include_dashboard=False, log_to_driver=False
    )
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(Idle).options(
        num_replicas=options.replicas,
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 0},
        request_router_config=RequestRouterConfig(
            request_router_class="dynasor.engines.ray_router:GangRouter",
            request_router_kwargs={"places": PLACES},
        ),
    )
    try:
        handle = serve.run(deployment.bind(), name="handle-cost", route_prefix=None)
        rows = asyncio.run(measure_all(handle, options))
    finally:
        serve.shutdown()
        ray.shutdown()
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
