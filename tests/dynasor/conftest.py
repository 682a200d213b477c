"""One real vLLM for all tests, and one real vLLM server, both on the embedded model."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import pytest_asyncio

from dynasor.embedded_model import path as embedded_model
from dynasor.embedded_model import test_suite as suite_file

pytest.importorskip("vllm", reason="vLLM is not installed")

SMALL = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "KMP_BLOCKTIME": "0",
}
"""Threads that do not fight with those of the other engine and of the tests."""


@pytest.fixture(scope="session")
def long_question():
    """A held-out question of more than two KV blocks."""
    rows = [json.loads(line) for line in suite_file().read_text().splitlines()]
    return max((row["question"] for row in rows), key=len)


@pytest.fixture(scope="session")
def easy_rows():
    """Held-out questions of the easiest level."""
    rows = [json.loads(line) for line in suite_file().read_text().splitlines()]
    return [row for row in rows if row["level"] == 1]


@pytest_asyncio.fixture(scope="session")
async def vllm_engine():
    """A started VLLMEngine."""
    from dynasor.engines.vllm import VLLMEngine

    before = dict(os.environ)
    os.environ.update(SMALL)
    engine = VLLMEngine(str(embedded_model()), max_running=16, kv_gib=1)
    await engine.start()
    yield engine
    await engine.close()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[str]:
    """Base URL of vLLM's own OpenAI server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(embedded_model()), "--served-model-name", "embedded"]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--enforce-eager",
        "--dtype",
        "bfloat16",
    ]
    command += ["--block-size", "32", "--max-num-seqs", "16", "--enable-prompt-tokens-details"]
    process = subprocess.Popen(
        command,
        env=os.environ | SMALL | {"VLLM_LOGGING_LEVEL": "ERROR"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(1200):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise AssertionError("the server did not come up")
