"""A real vLLM server with the embedded model, for tests of what speaks HTTP to one."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.server_process import started
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.cpu_tuning import IN_ENGINE

START_TIMEOUT = 400.0  # a busy machine with two cores needs minutes
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "KMP_BLOCKTIME": "0",
    "HF_HUB_OFFLINE": "1",
}
EMBEDDED = embedded_model()
SLOTS = 8
ENGINE = [
    *("--enforce-eager", "--block-size", "32", "--max-num-seqs", str(SLOTS)),
    *("--dtype", "bfloat16"),
]
GANGS = [
    *("--scheduler-cls", "dynasor.scheduling.vllm_scheduler.GangScheduler"),
    *("--additional-config", '{"dynasor": {"policy": "gang-srpt"}}'),
    *("--distributed-executor-backend", IN_ENGINE),
]


class VLLMServer(NamedTuple):
    """Where it listens, and what its model is called."""

    root: str
    model: str

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def metric(self, name: str, label: str = "") -> float:
        """Sum of a metric over its labels, of those that contain `label`."""
        lines = httpx.get(f"{self.root}/metrics", timeout=60).text.splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition("{")[0] == name and label in line
        )


@contextmanager
def serve(
    log: Path,
    *,
    gangs: bool = True,
    model: Path = EMBEDDED,
    options: Sequence[str] = (),
) -> Iterator[VLLMServer]:
    """Start a server, with our scheduler in it or with vLLM's, and end it with all its processes.

    Given `options`, it has vLLM's scheduler.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = VLLMServer(f"http://127.0.0.1:{port}", "embedded")
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", server.model),
        *("--host", "127.0.0.1", "--port", str(port), "--enable-prompt-tokens-details"),
        *(ENGINE + GANGS if gangs and not options else ENGINE),
        *options,
    ]
    with started(command, log, ENVIRONMENT, patience=20) as process:
        _wait(server, process, log)
        yield server


def _wait(server: VLLMServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.root}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError(f"no vLLM server; the end of its log:\n{log.read_text()[-3000:]}")
