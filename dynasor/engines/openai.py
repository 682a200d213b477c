"""Any OpenAI-compatible server, or several of them.

All requests of a program go to one server, since that is where the prompt's KV is; a new program
goes to the server with the fewest requests in flight. A server that does not answer is passed over
for a while, and a request that it failed before the first token is tried on the next one. Every
request streams, so that cutting it closes the connection and the server stops generating.

Tokens are counted by the server's usage figures. A server that sends them with every chunk (vLLM's
`continuous_usage_stats`) also gives exact counts for cut requests; for another, a cut request
counts one token a chunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import openai
from openai import AsyncOpenAI

from algorithms.program import Event, Progress, Request
from dynasor.config import VLLM_ORDERS, SchedulerConfig
from dynasor.engines.base import Capacity
from dynasor.engines.openai_body import body_of
from dynasor.engines.openai_stream import StreamedOutput
from dynasor.errors import EngineError
from dynasor.scheduling.admission import Gate
from dynasor.scheduling.aging import aging_of
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.latest import LatestHints
from dynasor.scheduling.policies import Fcfs, parse_policy

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
COOL_DOWN = 30.0
"""Seconds that a server is passed over after it failed to answer."""
REMEMBERED_PROGRAMS = 10_000
_ERROR_LENGTH = 300
# What another server may do better.
_UNAVAILABLE = (openai.APIConnectionError, openai.InternalServerError, TimeoutError)


@dataclass(slots=True, eq=False)
class _Server:
    url: str
    client: AsyncOpenAI
    in_flight: int = 0
    down_until: float = 0.0
    # Whether it takes vLLM's extra stream option; a server that refuses it is not asked again.
    counts_each_chunk: bool = True


class OpenAIEngine:
    """Sends requests to OpenAI-compatible servers.

    A chat request's `prefix` is sent as the assistant's last message, to be continued; this is
    vLLM's `continue_final_message`, which other servers may refuse.

    Args:
        base_urls: such as `http://localhost:8000/v1`; at least one.
        model: its name on the servers; the first that the first server lists if None.
        api_key: sent to the servers, never logged.
        max_running: requests in flight over all servers; others wait.
        timeout: seconds that a server may be silent.
        retries: tries again after refused connections, 429 and 5xx, with growing pauses.
        scheduler: which of the waiting requests is sent next; first come, first served if None.
        gang_hints: send each request's gang and hints along, for a vLLM that runs our scheduler;
            other servers may refuse the field.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        model: str | None = None,
        api_key: str | None = None,
        max_running: int = 64,
        timeout: float = 60.0,
        retries: int = 3,
        scheduler: SchedulerConfig | None = None,
        gang_hints: bool = False,
    ) -> None:
        limits = openai.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout))
        self._servers = [
            _Server(
                url,
                AsyncOpenAI(
                    base_url=url, api_key=api_key or "none", timeout=limits, max_retries=retries
                ),
            )
            for url in base_urls
        ]
        self._model = model
        self._api_key = api_key
        self._timeout = timeout
        self._max_running = max_running
        self._gate = _gate(max_running, scheduler)
        self._hints = LatestHints()
        self._gang_hints = gang_hints
        self._home: OrderedDict[str, _Server] = OrderedDict()  # program -> server, oldest use first
        self._running: dict[str, asyncio.Task[str | None]] = {}

    async def start(self) -> None:
        """Ask the servers for their models; those that do not answer are left for later.

        Raises:
            EngineError: if no server answers, or one that does lacks the model.
        """
        listed: dict[str, list[str]] = {}
        errors = []
        answers = await asyncio.gather(
            *(self._models(server) for server in self._servers), return_exceptions=True
        )
        for server, answer in zip(self._servers, answers, strict=True):
            if isinstance(answer, BaseException):
                errors.append(f"{server.url}: {self._describe(answer)}")
                server.down_until = monotonic() + COOL_DOWN
            else:
                listed[server.url] = answer
        if not listed:
            raise EngineError(
                f"no server answers ({'; '.join(errors)}); check that it runs, the API key, and "
                "--base-url, which mostly ends in /v1"
            )
        for error in errors:
            logger.warning("left for later: %s", error)
        self._choose_model(listed)

    async def _models(self, server: _Server) -> list[str]:
        async with asyncio.timeout(self._timeout):
            return [str(model.id) async for model in server.client.models.list()]

    def _choose_model(self, listed: Mapping[str, list[str]]) -> None:
        if self._model is None:
            first = next(iter(listed.values()))
            if not first:
                raise EngineError("the server lists no model; name one with --model")
            self._model = first[0]
        for url, models in listed.items():
            # A server that lists nothing may still know the model.
            if models and self._model not in models:
                known = ", ".join(models[:20])
                raise EngineError(f"{url} has no model {self._model!r}; it has {known}")

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream one request; see `Engine.submit`."""
        output = StreamedOutput(request)
        news: asyncio.Queue[Progress | None] = asyncio.Queue()
        # A task of its own: cutting is cancelling it, wherever it stands.
        task = asyncio.create_task(self._run(request, output, news))
        task.add_done_callback(lambda _: news.put_nowait(None))
        self._running[request.id] = task
        try:
            while (progress := await news.get()) is not None:
                yield progress
        finally:
            self._running.pop(request.id, None)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        cut = task.cancelled()
        yield output.generation(cut=cut, error=None if cut else task.result())

    async def _run(
        self, request: Request, output: StreamedOutput, news: asyncio.Queue[Progress | None]
    ) -> str | None:
        """Stream the request from one server, or from the next; returns what went wrong."""
        gang = request.program
        async with self._gate.slot(request.id, gang, self._hints.of(gang)) as ticket:
            try:
                error = await self._try_servers(request, output, news)
                ticket.finished = error is None
            finally:
                ticket.tokens = output.tokens
        return error

    async def _try_servers(
        self, request: Request, output: StreamedOutput, news: asyncio.Queue[Progress | None]
    ) -> str | None:
        failed: list[_Server] = []
        while True:
            server = self._server_of(request.program, failed)
            server.in_flight += 1
            try:
                await self._stream(server, request, output, news)
            except Exception as problem:
                error = f"{server.url}: {self._describe(problem)}"
                if not isinstance(problem, _UNAVAILABLE):
                    return error
                server.down_until = monotonic() + COOL_DOWN
                failed.append(server)
                if output.tokens or len(failed) == len(self._servers):
                    return error
                logger.warning("trying the next server for %s: %s", request.id, error)
            else:
                return None
            finally:
                server.in_flight -= 1

    def _server_of(self, program: str, failed: Collection[_Server]) -> _Server:
        """The server that the program is at home on, if that answers, or its new home."""
        now = monotonic()
        home = self._home.get(program)
        if home is None or home in failed or home.down_until > now:
            usable = [server for server in self._servers if server not in failed]
            home = min(usable, key=lambda server: (server.down_until > now, server.in_flight))
            self._home[program] = home
            if len(self._home) > REMEMBERED_PROGRAMS:
                self._home.popitem(last=False)
        self._home.move_to_end(program)
        return home

    async def _stream(
        self,
        server: _Server,
        request: Request,
        output: StreamedOutput,
        news: asyncio.Queue[Progress | None],
    ) -> None:
        reported = 0
        every = request.report_every
        async with await self._open(server, request) as stream:
            while True:
                async with asyncio.timeout(self._timeout):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                output.take(chunk)
                if every and output.tokens >= reported + every:
                    reported = output.tokens
                    news.put_nowait(output.progress())

    async def _open(self, server: _Server, request: Request) -> Any:
        if not server.counts_each_chunk:
            return await self._create(server, request, {})
        try:
            return await self._create(server, request, {"continuous_usage_stats": True})
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            # The option or the request is at fault: it is the option if the server takes the rest.
            stream = await self._create(server, request, {})
            server.counts_each_chunk = False
            return stream

    async def _create(self, server: _Server, request: Request, options: Mapping[str, Any]) -> Any:
        hints = self._hints.of(request.program) if self._gang_hints else None
        client = server.client
        create: Any = (
            client.completions.create
            if isinstance(request.prompt, str)
            else client.chat.completions.create
        )
        return await create(**body_of(request, self._model, options, hints))

    async def abort(self, ids: Iterable[str]) -> None:
        """Close the streams of these requests."""
        for request in ids:
            # Taken out, so that a second abort does not disturb the closing.
            if (task := self._running.pop(request, None)) is not None:
                task.cancel()

    def hint(self, gang: str, hints: Hints) -> None:
        """Order those that wait anew; those that are sent later carry the news."""
        self._hints.note(gang, hints)
        self._gate.hint(gang, hints)

    def capacity(self) -> Capacity:
        """Requests in flight that were asked for, and the model."""
        return Capacity(self._max_running, self._model or "unknown", supports_seed=True)

    async def close(self) -> None:
        """Close the connections; requests that still run are cut."""
        await self.abort(list(self._running))
        await asyncio.gather(*(server.client.close() for server in self._servers))

    def _describe(self, problem: BaseException) -> str:
        """The message on one line, cut short, without the key even if the server echoes it."""
        text = " ".join(str(problem).split())
        if isinstance(problem, TimeoutError):
            text = f"silent for {self._timeout:g} s"
        elif isinstance(problem, openai.APIConnectionError) and problem.__cause__ is not None:
            text = f"{text} ({problem.__cause__ or type(problem.__cause__).__name__})"
        elif not isinstance(problem, openai.OpenAIError):
            text = f"the answer cannot be read ({text or type(problem).__name__})"
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return text[:_ERROR_LENGTH]


def _gate(limit: int, scheduler: SchedulerConfig | None) -> Gate:
    if scheduler is None or scheduler.policy in VLLM_ORDERS:
        return Gate(limit, Fcfs())
    return Gate(limit, parse_policy(scheduler.policy), aging_of(scheduler))
