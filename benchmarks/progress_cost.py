"""What progress events cost a live engine: python benchmarks/progress_cost.py [--rounds 20].

The embedded model on vLLM, the batch full of one seeded load: the same questions with the same seeds
give the same tokens in each round. Rounds of each kind take turns on one engine: with log-probabilities
but no events (the yardstick), with an event every 8 and every token, and without log-probabilities.
Time a round as a ratio to the yardstick's round of the same turn, with its spread over turns. Run it on
an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from time import perf_counter

import numpy as np

from algorithms.program import Generation, Request, Sampling
from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.vllm import VLLMEngine
from dynasor.intervals import bootstrap
from dynasor.suites import load_suite

KINDS: dict[str, tuple[bool, int | None]] = {
    "no events": (True, None),
    "every 8 tokens": (True, 8),
    "every token": (True, 1),
    "no log-probabilities": (False, None),
}
"""Name -> whether log-probabilities are asked for, tokens between events."""


async def one_round(engine: VLLMEngine, requests: list[Request]) -> tuple[float, int]:
    """Seconds, and output tokens."""

    async def drain(request: Request) -> int:
        async for event in engine.submit(request):
            if isinstance(event, Generation):
                return event.tokens
        raise AssertionError("a request ends in a generation")

    began = perf_counter()
    tokens = await asyncio.gather(*(drain(request) for request in requests))
    return perf_counter() - began, sum(tokens)


def load_of(kind: str, turn: int, places: int) -> list[Request]:
    """As many requests as twice fill the batch."""
    logprobs, every = KINDS[kind]
    queries = load_suite("embedded").queries
    sampling = Sampling(max_tokens=400, logprobs=logprobs)
    return [
        Request(
            f"{turn}/{kind}/{index}",
            f"{turn}/{kind}/{index}",
            ({"role": "user", "content": queries[index % len(queries)].question},),
            replace(sampling, seed=1000 * turn + index),
            report_every=every,
        )
        for index in range(2 * places)
    ]


async def measure(rounds: int, places: int) -> dict[str, dict[str, object]]:
    engine = VLLMEngine(
        str(embedded_model()), max_running=places, max_model_len=1024, kv_gib=1,
        scheduler=SchedulerConfig(),
    )  # fmt: skip
    await engine.start()
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    tokens: dict[str, set[int]] = {}
    try:
        for turn in range(rounds + 1):
            order = list(KINDS) if turn % 2 else list(reversed(KINDS))
            for kind in order:
                took, count = await one_round(engine, load_of(kind, turn, places))
                tokens.setdefault(str(turn), set()).add(count)
                if turn:  # the first one warms up
                    seconds[kind].append(took)
    finally:
        await engine.close()
    yardstick = np.array(seconds["no events"])
    return {
        kind: {
            "seconds": float(np.median(values)),
            "ratio": float(np.mean(values) / yardstick.mean()),
            "interval": list(bootstrap(np.array(values), yardstick)),
            "same_tokens": all(len(counts) == 1 for counts in tokens.values()),
        }
        for kind, values in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--places", type=int, default=64, help="requests in the batch")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.rounds, arguments.places))
    if arguments.json:
        print(json.dumps(rows))
        return
    for kind, row in rows.items():
        low, high = row["interval"]
        print(
            f"{kind}: x{row['ratio']:.3f} [{low:.3f}, {high:.3f}], same tokens: {row['same_tokens']}"
        )


if __name__ == "__main__":
    main()
