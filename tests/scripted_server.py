"""A small HTTP server on the test's own event loop that answers as it is told, well or badly."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    server: "ScriptedServer"
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, kind: str = "text/event-stream", **more: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def event(self, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        await self.send(f"data: {text}\n\n".encode())

    async def hang_up(self) -> None:
        """Wait until the client closes the connection."""
        await self.reader.read()
        self.server.hung_up.set()


Reply = Callable[[Exchange], Awaitable[None]]


def chunk(text: str | None = None, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish, **choice}],
    }


def usage(completion: Any, prompt: Any = 7, **more: Any) -> dict[str, Any]:
    counts = {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": 0, **more}
    return {**chunk(), "choices": [], "usage": counts}


def status(code: int, message: str = "no", **headers: str) -> Reply:
    async def reply(exchange: Exchange) -> None:
        await exchange.head(code, "application/json", **headers)
        await exchange.send(json.dumps({"error": {"message": message}}).encode())

    return reply


def events(*contents: Any) -> Reply:
    """A stream of these events, however odd, and the end of the connection."""

    async def reply(exchange: Exchange) -> None:
        await exchange.head()
        for content in contents:
            await exchange.event(content)

    return reply


def stream(*texts: str) -> Reply:
    """A good answer of as many tokens as texts."""
    chunks = [chunk(text) for text in texts]
    return events(*chunks, chunk(finish="stop"), usage(len(texts)), "[DONE]")


def stall(*texts: str) -> Reply:
    """The begin of an answer, and then nothing."""

    async def reply(exchange: Exchange) -> None:
        await exchange.head()
        for text in texts:
            await exchange.event(chunk(text))
        await exchange.hang_up()

    return reply


async def drop(exchange: Exchange) -> None:
    """No answer: the connection just ends."""


@dataclass
class ScriptedServer:
    """Answers with each of `replies` once, then always with `default`."""

    models: list[str] | None = field(default_factory=lambda: ["m"])
    replies: list[Reply] = field(default_factory=list)
    default: Reply = field(default_factory=lambda: stream("four ", "words ", "in ", "all"))

    def __post_init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.hung_up = asyncio.Event()
        self.hangs = False  # it takes connections and answers nothing any more
        self._news = asyncio.Condition()
        self.most_at_once = 0
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ScriptedServer":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [exchange.body for exchange in self.exchanges]

    async def asked(self, times: int) -> None:
        """Wait until so many requests have come in."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.exchanges) >= times)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            path = head[0].split()[1]
            body = json.loads(content) if content else {}
            exchange = Exchange(self, path, headers, body, reader, writer)
            self._open += 1
            try:
                await self._reply(exchange)
            finally:
                self._open -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            writer.close()

    async def _reply(self, exchange: Exchange) -> None:
        if self.hangs:
            await exchange.hang_up()
            return
        if exchange.path == "/v1/models" and self.models is not None:
            await exchange.head(kind="application/json")
            listed = [{"id": m, "object": "model"} for m in self.models]
            await exchange.send(json.dumps({"object": "list", "data": listed}).encode())
            return
        async with self._news:
            self.exchanges.append(exchange)
            self._news.notify_all()
        self.most_at_once = max(self.most_at_once, self._open)
        await (self.replies.pop(0) if self.replies else self.default)(exchange)
