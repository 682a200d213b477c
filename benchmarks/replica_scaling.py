"""Replicas come and go with the load, under `dynasor deploy`: is a query lost?

python -m benchmarks.replica_scaling [--most 3] [--quiet 20] [--busy 90] [--clients 8] [--out FILE]

A Ray cluster of this machine, the command as users give it, the embedded model on vLLM. One client asks
for a while, then many, then one again until the replicas are as few as at first. Told: the replicas at
the end of each part, how long it took until they were as many, and how all queries ended. Ends with exit
code 1 if one failed, or the replicas did not come and go.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from benchmarks.clients_at_work import at_work, report, seconds_until
from benchmarks.replica_kill import running
from serving.ray_app import ENVIRONMENT

CONFIG = """
[cluster]
min_replicas = 1
max_replicas = {most}
tokens_a_replica = 500
scale_up_after = 2
scale_down_after = 10

[server]
port = {port}
drain = 20
"""


async def part(url: str, clients: int, least: float, replicas: int) -> dict[str, Any]:
    """So many clients ask for at least so long, and until there are so many replicas."""
    counts: list[int] = []

    def there() -> bool:
        counts.append(running())
        return counts[-1] == replicas

    async with at_work(url, clients) as work:
        reached = await seconds_until(there, least, every=0.5)
    told = {
        "clients": clients,
        "replicas": {"first": counts[0], "last": counts[-1], "most": max(counts)},
        "seconds_until": reached,
        **work.told(),
    }
    print(json.dumps(told), flush=True)
    return told


@contextmanager
def deployed(most: int) -> Iterator[str]:
    """The application on a cluster of this machine, by the command; its URL."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(address="local", num_cpus=most + 2, include_dashboard=False, log_to_driver=False)
    with socket.create_server(("127.0.0.1", 0)) as free:  # now, for Ray's processes take some
        port = free.getsockname()[1]
    config = Path(tempfile.mkdtemp()) / "dynasor.toml"
    config.write_text(CONFIG.format(most=most, port=port))
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "dynasor.cli", "deploy", "--config", str(config)]
    command += ["--address", address]
    try:
        subprocess.run(command, check=True)
        yield f"http://127.0.0.1:{port}/v1"
        subprocess.run([*command, "--remove"], check=True)
    finally:
        ray.shutdown()


async def play(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        await part(url, 1, options.quiet, 1),
        await part(url, options.clients, options.busy, options.most),
        await part(url, 1, options.quiet, 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--most", type=int, default=3, help="replicas")
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds with one client")
    parser.add_argument("--busy", type=float, default=90.0, help="seconds with many")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with deployed(options.most) as url:
        parts = asyncio.run(play(url, options))
    failed = report("parts", parts, options.out)
    came_and_went = all(one["seconds_until"] is not None for one in parts)
    raise SystemExit(0 if came_and_went and not failed else 1)


if __name__ == "__main__":
    main()
