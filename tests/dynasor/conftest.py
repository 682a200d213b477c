import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.embedded_model import test_suite as suite_file
from tests.vllm_server import VLLMServer, serve


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
    yield engine
    await engine.close()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """One server for all tests of a session."""
    pytest.importorskip("vllm")
    with serve(tmp_path_factory.mktemp("vllm") / "log.txt") as server:
        yield server
