from collections.abc import Iterator

import pytest

from tests.vllm_server import VLLMServer, serve


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """One server for all tests of a session."""
    pytest.importorskip("vllm")
    with serve(tmp_path_factory.mktemp("vllm") / "log.txt") as server:
        yield server
