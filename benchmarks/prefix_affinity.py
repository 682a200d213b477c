"""What vLLM's prefix cache holds where gangs stay together, against round robin; on real Ray Serve.

python -m benchmarks.prefix_affinity [--replicas 2] [--queries 40] [--kv-blocks 160] [--out FILE]

Two or more replicas of the embedded model on vLLM. Each router serves the same queries with the same
seeds, on replicas that begin empty:

samples  self-consistency, 16 samples of a question
probes   Dynasor-CoT: probes that go on from what a chain has written
chats    plain requests, each after one of 12 conversations of some 500 tokens that they share

Told: the share of gangs that were on one replica only, by which the routers can be told apart; tokens
that vLLM looked up in its prefix cache and found there, by its own counters, of all replicas; and the
prompt tokens that had to be computed, as a ratio paired by query with a bootstrap interval. With few KV
blocks (32 tokens each) not all replicas can hold all conversations.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest

from algorithms.chat import Chat
from algorithms.program import Event, Program, Request, Sampling
from certaindex.equivalence import AnswerEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.offline import make_program
from dynasor.config import Config, load_config
from dynasor.engines.ray_replica import EngineReplica
from dynasor.engines.ray_router import GangRouter
from dynasor.engines.ray_serve import RayServeEngine
from dynasor.intervals import bootstrap
from dynasor.programs import algorithm_of, rule_of
from dynasor.runtime import Runtime
from dynasor.suites import Query, Suite, load_suite
from serving.ray_app import ENVIRONMENT

APP = "prefix-affinity"
PLACES = 16  # of a replica
ADMISSION = 3  # with waves of 8 less than the places, so that gangs need not be split
CONVERSATIONS = 12
TURNS = 4  # of a conversation, each a question and its answer
COUNTERS = ("prefix_queries", "prefix_hits")


class RoundRobin(GangRouter):
    """Each request to the next replica, whatever it belongs to; news and cuts still find theirs."""

    _turn = 0

    def _wanted(self, pending: PendingRequest) -> str | None:
        if pending.metadata.call_method != "generate" or not self._index:
            return super()._wanted(pending)
        self._turn += 1
        names = sorted(self._index)
        return names[self._turn % len(names)]


ROUTERS = {
    "gangs together": "dynasor.engines.ray_router:GangRouter",
    "round robin": "benchmarks.prefix_affinity:RoundRobin",
}
REFERENCE = "round robin"


def sampled(queries: int, equivalence: AnswerEquivalence) -> tuple[Config, Iterator[Program]]:
    """Self-consistency on the longest questions."""
    config = load_config(
        overrides={
            "algorithm": {"seed": 0, "max_tokens": 200},
            "allocator": {"wave": 8, "rule": "fixed:16"},
        },
        environment={},
    )
    return config, _programs(config, queries, equivalence)


def probed(queries: int, equivalence: AnswerEquivalence) -> tuple[Config, Iterator[Program]]:
    """Chains of thought with probes."""
    config = load_config(
        overrides={"algorithm": {"name": "dynasor-cot", "seed": 0, "max_tokens": 400}},
        environment={},
    )
    return config, _programs(config, queries, equivalence)


def chatted(queries: int, equivalence: AnswerEquivalence) -> tuple[Config, Iterator[Program]]:
    """Plain requests after shared conversations."""
    del equivalence
    config = load_config(overrides={"allocator": {"rule": "fixed:1"}}, environment={})
    rows = [query for query in load_suite("embedded").queries if query.meta["level"] == 4]
    sampling = Sampling(max_tokens=64, seed=0)

    def conversation(number: int) -> list[dict[str, str]]:
        shown = rows[number * TURNS : (number + 1) * TURNS]
        return [
            turn
            for row in shown
            for turn in (
                {"role": "user", "content": row.question},
                {"role": "assistant", "content": f"It is \\boxed{{{row.gold}}}"},
            )
        ]

    beginnings = [conversation(number) for number in range(CONVERSATIONS)]
    draw = np.random.default_rng(0)

    def chats() -> Iterator[Program]:
        for number in range(5 * queries):
            question = {"role": "user", "content": f"{rows[-1 - number % 40].question} ({number})"}
            shared = beginnings[int(draw.integers(CONVERSATIONS))]
            yield Chat(f"chat{number}", (*shared, question), sampling=sampling)

    return config, chats()


WORKLOADS = {"samples": sampled, "probes": probed, "chats": chatted}


def _programs(config: Config, queries: int, equivalence: AnswerEquivalence) -> Iterator[Program]:
    """The questions of the highest levels, of which each workload takes others."""
    suite = load_suite("embedded")
    hard = [query for query in suite.queries if query.meta["level"] >= 4]
    first = 0 if config.algorithm.name == "self-consistency" else len(hard) // 2
    chosen: list[Query] = list(islice(hard, first, first + queries))
    for number, query in enumerate(chosen):
        named = Suite(suite.name, (query,), suite.extractor)
        yield make_program(config, named, query, number, equivalence)


class Watched(RayServeEngine):
    """Keeps on which replicas each gang was."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.replicas: dict[str, set[str | None]] = {}

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """As its base does."""
        async with aclosing(super().submit(request)) as events:
            async for event in events:
                self.replicas.setdefault(request.program, set()).add(self._where[request.id])
                yield event


async def play(handle: Any, queries: int) -> dict[str, Any]:
    """All workloads, one after the other: vLLM's counts, and each query's prompt tokens."""
    engine = Watched(handle)
    await engine.start()
    found: dict[str, Any] = {}
    with AnswerEquivalence(workers=1) as equivalence:
        for name, workload in WORKLOADS.items():
            config, programs = workload(queries, equivalence)
            wave = algorithm_of(config).wave(config)
            runtime = Runtime(engine, PerQuery(parse_rule(rule_of(config)), wave))
            before = await engine.counters()
            bills = {}
            async for outcome in runtime.run(programs, admission=ADMISSION):
                if outcome.failed:
                    raise RuntimeError(f"{outcome.query} failed: {outcome.errors}")
                bills[outcome.query] = (outcome.bill.prompt, outcome.bill.cached)
            after = await engine.counters()
            together = [len(engine.replicas[gang]) == 1 for gang in bills]
            found[name] = {"bills": bills, "together": sum(together) / len(together)}
            found[name] |= {n: after[n] - before[n] for n in COUNTERS}
    await engine.close()
    return found


def served(router: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the workloads cost with a router, on fresh replicas."""
    blocks = {"max_running": PLACES, "kv_blocks": options.kv_blocks}
    config = load_config(overrides={"engine": blocks}, environment={})
    deployment = serve.deployment(EngineReplica).options(
        num_replicas=options.replicas,
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 1},
        graceful_shutdown_timeout_s=5,
        health_check_timeout_s=120,  # what is measured is no time
        request_router_config=RequestRouterConfig(
            request_router_class=ROUTERS[router], request_router_kwargs={"places": PLACES}
        ),
    )
    # A name for each: Serve may give a handle the router of an earlier deployment of the same name.
    name = f"{APP}-{router.replace(' ', '-')}"
    bound = deployment.bind(config.model_dump(mode="json"))
    try:
        handle = serve.run(bound, name=name, route_prefix=None)
        return asyncio.run(play(handle, options.queries))
    finally:
        serve.delete(name)


def compared(found: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a workload and router, printed."""
    for workload in WORKLOADS:
        theirs = found[REFERENCE][workload]["bills"]
        for router in ROUTERS:
            one = found[router][workload]
            names = sorted(theirs)
            computed, reference = (
                np.array([float(bills[n][0] - bills[n][1]) for n in names])
                for bills in (one["bills"], theirs)
            )
            low, high = bootstrap(computed, reference)
            row = {
                "workload": workload,
                "router": router,
                "queries": len(names),
                "looked_up": one["prefix_queries"],
                "together": one["together"],
                "held": one["prefix_hits"],
                "hit_rate": one["prefix_hits"] / one["prefix_queries"],
                "computed_ratio": float(computed.mean() / reference.mean()),
                "interval": (low, high),
            }
            print(
                f"{workload:8s} {router:15s} {row['together']:6.1%} of gangs on one replica; "
                f"{row['looked_up']:9,.0f} looked up, "
                f"{row['hit_rate']:6.1%} held; computed x {row['computed_ratio']:.3f} "
                f"({low:.3f}, {high:.3f})",
                flush=True,
            )
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument(
        "--queries", type=int, default=40, help="a workload; of chats five times as many"
    )
    parser.add_argument("--kv-blocks", type=int, default=160, help="of 32 tokens, a replica")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",
        num_cpus=options.replicas + 2,
        include_dashboard=False,
        log_to_driver=False,
    )
    serve.start(proxy_location="Disabled")
    try:
        found = {router: served(router, options) for router in ROUTERS}
    finally:
        serve.shutdown()
        ray.shutdown()
    rows = list(compared(found))
    if options.out:
        settings = {"replicas": options.replicas, "kv_blocks": options.kv_blocks}
        options.out.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
