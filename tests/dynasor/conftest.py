import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from dynasor.cli import main
from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.embedded_model import test_suite as suite_file
from tests.vllm_server import VLLMServer, serve


class Ended(NamedTuple):
    """What `subprocess.run` tells of a command, of one that ran in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """The command line in this process: all of it but the second that a process takes to import."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dynasor", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
            assert isinstance(code, int), code
        else:
            code = 0
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """The held-out problems of the embedded model."""
    return [json.loads(line) for line in suite_file().read_text().splitlines()]


@pytest.fixture(scope="session")
def easy_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the easiest level."""
    return [row for row in rows if row["level"] == 1]


@pytest.fixture(scope="session")
def long_question(rows: list[dict[str, Any]]) -> str:
    """The longest of their questions."""
    return max((row["question"] for row in rows), key=len)


@pytest_asyncio.fixture(scope="session")
async def vllm_engine() -> AsyncIterator[Any]:
    """One engine in this process for all tests of a session."""
    pytest.importorskip("vllm")
    from dynasor.engines.vllm import VLLMEngine

    before = dict(os.environ)
    engine = VLLMEngine(
        str(embedded_model()), max_running=16, kv_gib=1, scheduler=SchedulerConfig()
    )
    await engine.start()
    # What was set was for its processes, which have it; commands that tests start must not.
    os.environ.clear()
    os.environ.update(before)
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """One server for all tests of a file."""
    pytest.importorskip("vllm")
    with serve(tmp_path_factory.mktemp("vllm") / "log.txt") as server:
        yield server


@pytest.fixture
def dead_url() -> Iterator[str]:
    """Nobody listens there, and nobody else can take the port meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
