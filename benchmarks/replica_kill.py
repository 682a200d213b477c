"""A replica killed again and again under load, on `dynasor serve --replicas N` (Ray Serve).

python -m benchmarks.replica_kill [--kills 10] [--hang] [--replicas 2] [--clients 8] [--out FILE]

Told for each kill: how the queries ended that were in flight or came until as many replicas served again
as before, seconds until Serve had found it and until they did, and the longest time without any answer.
With --hang the replica is stopped (SIGSTOP), not
killed: Serve's health check has to find it. A query that fails, or is billed for more or fewer samples
than it had, ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import ray
from ray import serve

from benchmarks.endpoint_process import Served, serving

QUESTION = (
    "Mia has 14 shells. She finds 8 more. She gives away 5. How many shells does Mia have now?"
)
SAMPLES = 16
SETTLE = 3.0
PATIENCE = 300.0


async def ask(client: openai.AsyncOpenAI, seen: Counter[str], ends: list[float]) -> None:
    """One query with its whole budget, so that it has samples in flight and finished ones."""
    plan = {"stop": {"rule": f"fixed:{SAMPLES}"}, "budget": {"samples": SAMPLES}}
    try:
        made: Any = await client.chat.completions.create(
            model="embedded:self-consistency",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"dynasor": plan},
        )
    except openai.OpenAIError as error:
        seen[f"failed: {type(error).__name__}"] += 1
        await asyncio.sleep(0.5)
        return
    ends.append(time.monotonic())
    told = made.dynasor
    seen["answered"] += 1
    seen["samples that were lost"] += told["failed"]
    if told["samples"] + told["failed"] != SAMPLES:
        seen["billed wrongly"] += 1


async def run(served: Served, options: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = []
    async with openai.AsyncOpenAI(
        base_url=served.url, api_key="none", max_retries=0, timeout=600
    ) as client:
        for _ in range(options.kills):
            seen: Counter[str] = Counter()
            ends: list[float] = []
            over = asyncio.Event()

            async def play(
                seen: Counter[str] = seen,
                ends: list[float] = ends,
                over: asyncio.Event = over,
            ) -> None:
                while not over.is_set():
                    await ask(client, seen, ends)

            players = [asyncio.create_task(play()) for _ in range(options.clients)]
            await asyncio.sleep(SETTLE)
            victim, *_ = served.replicas()
            if options.hang:
                victim.suspend()
            else:
                victim.kill()
            begin = time.monotonic()
            found = await _seconds_until(lambda: running() < options.replicas)
            back = await _seconds_until(lambda: running() >= options.replicas)
            await asyncio.sleep(SETTLE)
            over.set()
            await asyncio.gather(*players)
            after = [begin, *sorted(end for end in ends if end > begin)]
            silence = max((b - a for a, b in pairwise(after)), default=None)
            rounds.append(
                {
                    "found_seconds": found,
                    "back_seconds": None if back is None or found is None else found + back,
                    "longest_silence": silence,
                    "ends": dict(seen),
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
    return rounds


def running() -> int:
    """Engine replicas that serve, as Serve's controller knows it."""
    whole = serve.status().applications["dynasor"].deployments["EngineReplica"]
    return sum(n for state, n in whole.replica_states.items() if state == "RUNNING")


async def _seconds_until(true: Callable[[], bool]) -> float | None:
    """None if that takes too long."""
    begin = time.monotonic()
    while time.monotonic() - begin < PATIENCE:
        if await asyncio.to_thread(true):
            return time.monotonic() - begin
        await asyncio.sleep(0.1)
    return None


def report(name: str, parts: list[dict[str, Any]], out: Path | None) -> set[str]:
    """Tell how the queries of all parts ended; the ends that must not be."""
    ends: Counter[str] = Counter()
    for one in parts:
        ends.update(one["ends"])
    text = json.dumps({name: parts, "ends": dict(ends)}, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")
    return set(ends) - {"answered", "samples that were lost"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--hang", action="store_true", help="stop the replica's process instead")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    log = Path(tempfile.mkdtemp()) / "serve.log"
    with serving(log, "--replicas", str(options.replicas)) as served:
        ray.init(address="auto", log_to_driver=False)
        rounds = asyncio.run(run(served, options))
        ray.shutdown()
    raise SystemExit(1 if report("rounds", rounds, options.out) else 0)


if __name__ == "__main__":
    main()
