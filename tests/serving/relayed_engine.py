"""A scripted engine in the test's process, and what stands for it in the replicas on Ray."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from inspect import isawaitable
from typing import Any
from urllib.parse import urlsplit

from algorithms.program import Event, Generation, Request
from dynasor.config import Config
from dynasor.engines.base import Capacity
from dynasor.engines.ray_replica import EngineReplica
from dynasor.scheduling.gang import Hints


class Relay:
    """Hands what replicas ask to the engine of the test that runs."""

    def __init__(self) -> None:
        self.engine: Any = None

    async def start(self) -> int:
        """Its port."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            method, arguments = await _receive(reader)
            try:
                if method == "submit":
                    await self._submit(arguments[0], reader, writer)
                else:
                    told = getattr(self.engine, method)(*arguments)
                    _send(writer, await told if isawaitable(told) else told)
            except Exception as error:
                _send(writer, error)
            await writer.drain()
        writer.close()

    async def _submit(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Events of a request, until it ends or the replica leaves."""

        async def tell() -> None:
            async with aclosing(self.engine.submit(request)) as events:
                async for event in events:
                    _send(writer, event)
                    await writer.drain()

        telling, left = asyncio.create_task(tell()), asyncio.create_task(reader.read(1))
        await asyncio.wait([telling, left], return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not telling.done():
            telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


class RelayedEngine:
    """An engine that asks the relay."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._hints: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._capacity: Capacity = await self._ask("capacity")

    async def submit(self, request: Request) -> AsyncIterator[Event]:
        reader, writer = await self._open("submit", request)
        try:
            while True:
                event = await _received(reader)
                yield event
                if isinstance(event, Generation):
                    return
        finally:
            writer.close()

    async def abort(self, ids: Iterable[str]) -> None:
        await self._ask("abort", list(ids))

    def hint(self, gang: str, hints: Hints) -> None:
        task = asyncio.create_task(self._ask("hint", gang, hints))
        self._hints.add(task)
        task.add_done_callback(self._hints.discard)

    async def measure(self, request: Request) -> int:
        return int(await self._ask("measure", request))

    def capacity(self) -> Capacity:
        return self._capacity

    async def close(self) -> None:
        for task in self._hints:
            task.cancel()

    async def _ask(self, method: str, *arguments: Any) -> Any:
        reader, writer = await self._open(method, *arguments)
        try:
            return await _received(reader)
        finally:
            writer.close()

    async def _open(self, method: str, *arguments: Any) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        _send(writer, (method, arguments))
        return reader, writer


class ScriptedReplica(EngineReplica):
    """A replica whose engine is the test's; the configuration has the relay's port."""

    @staticmethod
    def engine_of(config: Config) -> Any:
        port = urlsplit(config.engine.base_urls[0]).port
        assert port is not None
        return RelayedEngine(port)


def _send(writer: asyncio.StreamWriter, thing: Any) -> None:
    data = pickle.dumps(thing)
    writer.write(len(data).to_bytes(8, "big") + data)


async def _receive(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(8), "big")
    return pickle.loads(await reader.readexactly(size))  # noqa: S301  # of this very test


async def _received(reader: asyncio.StreamReader) -> Any:
    thing = await _receive(reader)
    if isinstance(thing, Exception):
        raise thing
    return thing
