import pytest_asyncio

from tests.serving.running_server import running
from tests.serving.scripted_engine import ScriptedEngine


@pytest_asyncio.fixture(scope="session")
async def shared():
    """One server for tests that leave nothing behind."""
    async with running(ScriptedEngine()) as server:
        yield server
