"""The real server on a real socket, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from openai import AsyncOpenAI
from opentelemetry.trace import NoOpTracer

from certaindex.equivalence import DEADLINE_SECONDS, AnswerEquivalence
from dynasor.config import Config, load_config
from dynasor.ranking.scorer import ranking
from serving.app import create_app, with_front_door
from serving.engine_guard import EngineGuard
from serving.front_door import FrontDoor
from serving.keys import Keys
from serving.server import give_up_after, listen

QUESTION = [{"role": "user", "content": "what is two and two?"}]
MODEL = "scripted"


@dataclass
class Reachable:
    """A server at an address, wherever it runs.

    Attributes:
        admin: key with which `idle` may look, where there are keys.
    """

    root: str
    clients: list[AsyncOpenAI] = field(default_factory=list, kw_only=True)
    admin: str = field(default="none", kw_only=True)

    def openai(self, key: str = "none") -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=f"{self.root}/v1", api_key=key, max_retries=0, timeout=30)
        self.clients.append(client)
        return client

    def http(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.root, timeout=30, **more)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


@dataclass
class Running(Reachable):
    """One in this process."""

    app: FastAPI
    door: FrontDoor
    equivalence: AnswerEquivalence
    connections: set[Any]

    @property
    def service(self) -> Any:
        return self.app.state.service

    async def idle(self) -> None:
        """Wait until nothing is left of any query."""
        async with asyncio.timeout(20):
            while self.service.live or self.service.guard.running or self.door._inside:
                await asyncio.sleep(0.01)


def settings(**server: Any) -> Config:
    sections = {"engine": {"kind": "openai", "base_urls": ("http://x/v1",), "model": MODEL}}
    return load_config(overrides={**sections, "server": server}, environment={})


@asynccontextmanager
async def running(
    engine: Any,
    keys: Keys | None = None,
    config: Config | None = None,
    deadline: float = DEADLINE_SECONDS,
) -> AsyncIterator[Running]:
    """Serve an engine, or what a function without arguments builds; a deadline for the algebra."""
    build = engine if callable(engine) else lambda: engine
    config = config or settings()
    keys = keys or Keys([])
    guard = EngineGuard(build, NoOpTracer(), patience=5.0)
    with (
        AnswerEquivalence(deadline, workers=2) as equivalence,
        ranking(config.ranking) as scorer,
    ):
        app = create_app(config, keys, equivalence, {}, guard, scorer)
        door = with_front_door(app, config, keys)
        server = uvicorn.Server(
            uvicorn.Config(door, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        )
        listening = listen("127.0.0.1", 0)
        give_up_after(listening, config.server.stalled)
        server.install_signal_handlers = lambda: None
        await app.state.service.engine.start()
        serving = asyncio.create_task(server._serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        port = listening.getsockname()[1]
        connections = server.server_state.connections
        here = Running(f"http://127.0.0.1:{port}", app, door, equivalence, connections)
        try:
            yield here
        finally:
            await here.close()
            server.should_exit = True
            await serving
            await app.state.service.audits.close()
            await app.state.service.engine.close()
