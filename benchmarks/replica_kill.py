"""A replica killed again and again under load, on `dynasor serve --replicas N` (Ray Serve).

python -m benchmarks.replica_kill [--kills 10] [--hang] [--replicas 2] [--clients 8] [--out FILE]

Told for each kill: how the queries ended that were in flight or came until as many replicas served again
as before, seconds until Serve had found it and until they did, and the longest time without any answer.
With --hang the replica is stopped (SIGSTOP), not killed: Serve's health check has to find it. A query
that fails, or is billed for other samples or prompts than it had, or a replica that is not replaced,
ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve

from benchmarks.clients_at_work import at_work, report, seconds_until
from benchmarks.endpoint_process import Served, serving

SETTLE = 3.0


async def run(served: Served, options: argparse.Namespace) -> list[dict[str, Any]]:
    return [await one(served, options) for _ in range(options.kills)]


async def one(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """A replica is lost under load; what was seen until as many serve as before."""
    async with at_work(served.url, options.clients) as work:
        await asyncio.sleep(SETTLE)
        victim, *_ = served.replicas()
        if options.hang:
            victim.suspend()
        else:
            victim.kill()
        begin = time.monotonic()
        found = await seconds_until(lambda: running() < options.replicas, every=0.1)
        back = await seconds_until(lambda: running() >= options.replicas, every=0.1)
        await asyncio.sleep(SETTLE)
    told = {
        "found_seconds": found,
        "back_seconds": None if back is None or found is None else found + back,
        "longest_silence": work.longest_silence(begin),
        **work.told(),
    }
    print(json.dumps(told), flush=True)
    return told


def running() -> int:
    """Engine replicas that serve, as Serve's controller knows it."""
    whole = serve.status().applications["dynasor"].deployments["EngineReplica"]
    return sum(n for state, n in whole.replica_states.items() if state == "RUNNING")


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
    wrong = report("rounds", rounds, options.out)
    came_back = all(each["back_seconds"] is not None for each in rounds)
    raise SystemExit(0 if came_back and not wrong else 1)


if __name__ == "__main__":
    main()
