"""`dynasor serve` as a process of its own, for what looks at the endpoint from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.server_process import started

START_TIMEOUT = 400.0


@dataclass
class Served:
    """A server that runs.

    Attributes:
        process: of the server; the engine's are its children.
        root: such as http://127.0.0.1:8000.
        log: its JSON lines.
    """

    process: subprocess.Popen[bytes]
    root: str
    log: Path

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def metrics(self) -> dict[str, float]:
        """Metric with its labels -> value."""
        lines = httpx.get(f"{self.root}/metrics", timeout=60).text.splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def memory(self) -> int:
        """Resident bytes of the server and its engine."""
        whole = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in [whole, *whole.children(recursive=True)])

    def engine_processes(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "EngineCore" in child.name()]

    def replicas(self) -> list[psutil.Process]:
        """Processes of the engine replicas on Ray (`--replicas`)."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "EngineReplica" in " ".join(_words(child))]

    def lines(self) -> list[dict[str, object]]:
        """The log so far."""
        return [
            json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")
        ]


def _words(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def serving(
    log: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[Served]:
    """Start a server on a free port, wait until it is ready, and end it with all its processes."""
    command = [sys.executable, "-m", "dynasor.cli", "serve", "--port", "0", *options]
    with started(command, log, environment or {}) as process:
        served = Served(process, "", log)
        served.root = _wait(served)
        yield served


def _wait(served: Served) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and served.process.poll() is None:
        for line in served.lines():
            message = str(line.get("message"))
            if message.startswith("ready: "):
                return message.rpartition(" on ")[2].removesuffix("/v1")
        time.sleep(0.2)
    raise RuntimeError(f"no server; the end of its log:\n{served.log.read_text()[-3000:]}")
