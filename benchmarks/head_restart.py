"""The head of a Ray cluster is killed under load and started again: what do clients see of it?

python -m benchmarks.head_restart [--down 30] [--storage rocksdb] [--clients 4] [--out FILE]

A cluster of two nodes on this machine: a head without cores, which has Ray's store (the GCS), Serve's
controller and a proxy, and a node that has the endpoint, a proxy and two engine replicas (embedded model
on vLLM). All processes of the head are killed (SIGKILL), and it is started again later, with what
`--storage` kept. Then an engine replica is killed, for somebody must be there again to replace it.

Told for each part: how the queries ended. Connections through the head's proxy break when it dies: so
many queries may fail then as there are clients, and none later. Ends with exit code 1 if more fail, or
if nothing replaces the replica: with `--storage memory` a head that is back knows of nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.clients_at_work import PATIENCE, at_work, report, seconds_until
from benchmarks.server_process import started
from serving.ray_app import ENVIRONMENT

HOST = "127.0.0.1"
REPLICAS = 2
SETTLE = 5.0
REPLACED = "a replica was killed"
CONFIG = """
[cluster]
min_replicas = {replicas}

[server]
port = {port}
drain = 5
"""
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Cluster:
    """Two nodes on this machine.

    Args:
        folder: for logs, the configuration, and what the head keeps.
        storage: where the head keeps what it knows: rocksdb, or memory.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        self._folder = folder
        self._address = f"{HOST}:{free_port()}"
        # A node gives up a head that is away for this long; Ray's default is 60.
        patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
        # One machine; else it would depend on the machine whether a token is asked for.
        self._environment = {**ENVIRONMENT, **patience, "RAY_AUTH_MODE": "disabled"}
        self._kept = {"RAY_gcs_storage": storage}
        if storage != "memory":
            self._kept["RAY_gcs_storage_path"] = str(folder / "gcs")
        self.root = f"http://{HOST}:{free_port()}"

    @contextmanager
    def head(self) -> Iterator[subprocess.Popen[bytes]]:
        port = self._address.partition(":")[2]
        command = [*RAY, "--head", "--node-ip-address", HOST, "--port", port, "--num-cpus", "0"]
        command += ["--include-dashboard", "false", "--temp-dir", str(self._folder / "ray")]
        # Ray takes the node that is left for a cluster of this machine which has its head still.
        (self._folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        environment = {**self._environment, **self._kept}
        with started(command, self._folder / f"head{time.monotonic():.0f}", environment) as process:
            self._wait_for_head(process)
            yield process

    def _wait_for_head(self, process: subprocess.Popen[bytes]) -> None:
        port = int(self._address.partition(":")[2])
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                socket.create_connection((HOST, port), 1).close()
                return
            time.sleep(0.2)
        raise RuntimeError(f"the head does not start; see {self._folder}")

    @contextmanager
    def node(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [*RAY, "--address", self._address, "--node-ip-address", HOST]
        command += ["--num-cpus", str(REPLICAS + 2)]
        with started(command, self._folder / "node", self._environment) as process:
            yield process

    def deploy(self) -> None:
        config = self._folder / "dynasor.toml"
        port = self.root.rpartition(":")[2]
        config.write_text(CONFIG.format(replicas=REPLICAS, port=port))
        command = [sys.executable, "-m", "dynasor.cli", "deploy", "--config", str(config)]
        command += ["--address", self._address]
        subprocess.run(command, check=True, env={**os.environ, **self._environment})


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a node as a machine ends that loses its power."""
    whole = psutil.Process(process.pid)
    for each in [whole, *whole.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def replicas(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Processes of the engine replicas that are ready or load; none if their node has ended."""
    found: list[psutil.Process] = []
    if node.poll() is not None:
        return found
    for each in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "Replica:" in each.name() and "EngineReplica" in " ".join(each.cmdline()):
                found.append(each)
    return found


async def part(
    name: str, url: str, clients: int, least: float, done: Callable[[], bool]
) -> dict[str, Any]:
    """So many clients ask for so long, and until something has come about."""
    async with at_work(url, clients, patience=120.0) as work:
        reached = await seconds_until(done, least)
    told = {"part": name, "seconds_until": reached, **work.told()}
    print(told, flush=True)
    return told


def play(options: argparse.Namespace) -> list[dict[str, Any]]:
    cluster = Cluster(Path(tempfile.mkdtemp()), options.storage)
    url = f"{cluster.root}/v1"
    parts: list[dict[str, Any]] = []

    def run(name: str, least: float, done: Callable[[], bool] = lambda: True) -> None:
        parts.append(asyncio.run(part(name, url, options.clients, least, done)))

    with ExitStack() as on_exit:
        head = on_exit.enter_context(cluster.head())
        node = on_exit.enter_context(cluster.node())
        cluster.deploy()
        run("before", SETTLE)
        begin = time.monotonic()

        def kill_once() -> bool:
            if head.poll() is None and time.monotonic() - begin > SETTLE:
                kill_all(head)
            return head.poll() is not None

        run("the head dies", 2 * SETTLE, kill_once)
        run("without a head", options.down)
        on_exit.enter_context(cluster.head())
        run("the head is back", 2 * SETTLE)
        if before := {each.pid for each in replicas(node)}:
            psutil.Process(min(before)).kill()
        run(
            REPLACED if before else "all replicas are gone",
            SETTLE,
            lambda: not before or len({p.pid for p in replicas(node)} - {min(before)}) >= REPLICAS,
        )
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--down", type=float, default=30.0, help="seconds without a head")
    parser.add_argument("--storage", choices=["rocksdb", "memory"], default="rocksdb")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    parts = play(options)
    report("parts", parts, options.out)
    failed = {
        one["part"]: sum(n for end, n in one["ends"].items() if end.startswith("failed"))
        for one in parts
    }
    broken = failed.pop("the head dies")
    replaced = parts[-1]["part"] == REPLACED and parts[-1]["seconds_until"] is not None
    good = replaced and broken <= options.clients and not any(failed.values())
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
