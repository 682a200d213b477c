"""Any OpenAI-compatible server, or several of them.

All requests of a program go to one server while it answers, since that is where the prompt's KV is;
a new program goes to the server with the fewest requests in flight. Every request streams, so that
cutting it closes the connection and the server stops generating.

Tokens are counted by the server's usage figures. A server that sends them with every chunk (vLLM's
`continuous_usage_stats`) also gives exact counts for cut requests; for another, a cut request
counts one token a chunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import openai
from openai import AsyncOpenAI

from algorithms.program import Event, Generation, Progress, Request
from dynasor.engines.base import Capacity
from dynasor.errors import EngineError

logger = logging.getLogger(__name__)

LARGEST_OUTPUT = 8 << 20
"""Characters that are kept of one request: a server that never ends must not fill the memory."""
CONNECT_TIMEOUT = 10.0
REMEMBERED_PROGRAMS = 10_000
DOWN_SECONDS = 30.0
"""A server that refused a connection is asked last for so long."""
_ERROR_LENGTH = 300


@dataclass(slots=True)
class _Server:
    url: str
    client: AsyncOpenAI
    in_flight: int = 0
    down_until: float = 0.0
    # Whether it takes vLLM's extra stream option; a server that refuses it is not asked again.
    counts_each_chunk: bool = True


@dataclass(slots=True)
class _Output:
    """What a request has produced so far."""

    text: str = ""
    chunks: int = 0
    completion_tokens: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    confidence: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.chunks if self.completion_tokens is None else self.completion_tokens


class OpenAIEngine:
    """Sends requests to OpenAI-compatible servers.

    Args:
        base_urls: such as `http://localhost:8000/v1`; at least one.
        model: its name on the servers; the first that the first server lists if None.
        api_key: sent to the servers, never logged.
        max_running: requests in flight over all servers; others wait.
        timeout: seconds that a server may be silent.
        retries: tries again after refused connections, 429 and 5xx, with growing pauses.
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
        self._timeout = timeout
        self._max_running = max_running
        self._slots = asyncio.Semaphore(max_running)
        self._home: dict[str, _Server] = {}  # program -> its server
        self._cut: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        """Ask the servers for their models; those that do not answer are left for later.

        Raises:
            EngineError: if no server answers, or none has the model.
        """
        errors, models = [], []
        for server in self._servers:
            try:
                models += [model.id async for model in server.client.models.list()]
            except openai.APIError as error:
                errors.append(f"{server.url}: {_one_line(error)}")
        if len(errors) == len(self._servers):
            raise EngineError(f"no server answers ({'; '.join(errors)}); check --base-url")
        if self._model is None:
            if not models:
                raise EngineError("the server lists no model; name one with --model")
            self._model = models[0]
        elif models and self._model not in models:
            known = ", ".join(dict.fromkeys(models))
            raise EngineError(f"the server has no model {self._model!r}; it has {known}")

    async def submit(self, request: Request) -> AsyncIterator[Event]:
        """Stream one request; see `Engine.submit`."""
        cut = self._cut[request.id] = asyncio.Event()
        output = _Output()
        error = None
        try:
            async with self._slots:
                for _ in self._servers:
                    error = None
                    server = self._server_of(request.program)
                    try:
                        reported = 0
                        async for _ in self._chunks(server, request, output, cut):
                            due = request.report_every
                            if due and output.tokens >= reported + due:
                                reported = output.tokens
                                yield Progress(request.id, output.text, output.tokens)
                    except (openai.APIError, TimeoutError, ValueError) as problem:
                        error = _one_line(problem) or f"silent for {self._timeout:g} s"
                        if isinstance(problem, openai.APIConnectionError) and not output.chunks:
                            # Nobody is there. Nothing was generated yet: another server can do it.
                            server.down_until = monotonic() + DOWN_SECONDS
                            self._home.pop(request.program, None)
                            continue
                    finally:
                        self._leave(server)
                    break
        finally:
            del self._cut[request.id]
        yield _generation(request, output, cut.is_set(), error)

    def _server_of(self, program: str) -> _Server:
        if program not in self._home:
            now = monotonic()
            self._home[program] = min(
                self._servers, key=lambda server: (server.down_until > now, server.in_flight)
            )
        server = self._home[program]
        server.in_flight += 1
        return server

    def _leave(self, server: _Server) -> None:
        server.in_flight -= 1
        # A program between two samples keeps its server; the table must not grow for ever.
        while len(self._home) > REMEMBERED_PROGRAMS:
            del self._home[next(iter(self._home))]

    async def _chunks(
        self, server: _Server, request: Request, output: _Output, cut: asyncio.Event
    ) -> AsyncIterator[None]:
        """Fold the stream into `output`, yielding after each chunk, until it ends or is cut."""
        if cut.is_set():
            return
        stream = await self._open(server, request)
        waiting = asyncio.ensure_future(cut.wait())
        try:
            chunks = aiter(stream)
            while True:
                coming = asyncio.ensure_future(anext(chunks))
                await asyncio.wait(
                    {coming, waiting}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                    if waiting.done():
                        return
                    raise TimeoutError
                try:
                    _take(output, coming.result(), request.sampling.top_logprobs)
                except StopAsyncIteration:
                    return
                yield
        finally:
            waiting.cancel()
            await stream.close()

    async def _open(self, server: _Server, request: Request) -> Any:
        if server.counts_each_chunk:
            try:
                return await self._create(server, request, {"continuous_usage_stats": True})
            except openai.BadRequestError as error:
                if "continuous_usage_stats" not in str(error):
                    raise
                server.counts_each_chunk = False
        return await self._create(server, request, {})

    async def _create(self, server: _Server, request: Request, options: Mapping[str, Any]) -> Any:
        sampling = request.sampling
        arguments: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True, **options},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            arguments["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            arguments["seed"] = sampling.seed
        if isinstance(request.prompt, str):
            if sampling.top_logprobs:
                arguments["logprobs"] = sampling.top_logprobs
            prompt = request.prompt + request.prefix
            return await server.client.completions.create(prompt=prompt, **arguments)
        messages = [dict(message) for message in request.prompt]
        if request.prefix:
            # vLLM's way to let the model go on with an answer that has begun.
            messages.append({"role": "assistant", "content": request.prefix})
            arguments["extra_body"] = {
                "continue_final_message": True,
                "add_generation_prompt": False,
            }
        if sampling.top_logprobs:
            arguments |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        create: Any = server.client.chat.completions.create
        return await create(messages=messages, **arguments)

    async def abort(self, ids: Iterable[str]) -> None:
        """Close the streams of these requests."""
        for request in ids:
            if request in self._cut:
                self._cut[request].set()

    def capacity(self) -> Capacity:
        """Requests in flight that were asked for, and the model."""
        return Capacity(self._max_running, self._model or "unknown", supports_seed=True)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(server.client.close() for server in self._servers))


def _take(output: _Output, chunk: Any, top: int) -> None:
    """Fold one chunk in.

    Raises:
        ValueError: if the server sends more than is kept, or something else than a chunk.
    """
    usage = getattr(chunk, "usage", None)
    if usage is not None:
        output.completion_tokens = usage.completion_tokens
        output.prompt_tokens = usage.prompt_tokens or 0
        details = getattr(usage, "prompt_tokens_details", None)
        output.cached_tokens = getattr(details, "cached_tokens", None) or 0
    choices = getattr(chunk, "choices", None)
    if choices is None:
        raise ValueError("the server sent something else than a completion chunk")
    if not choices:
        return
    choice = choices[0]
    delta = getattr(choice, "delta", None)
    new = (delta.content if delta is not None else getattr(choice, "text", None)) or ""
    if new:
        output.chunks += 1
        output.text += new
        if len(output.text) > LARGEST_OUTPUT:
            raise ValueError(f"the server sent more than {LARGEST_OUTPUT} characters")
    output.finish_reason = choice.finish_reason or output.finish_reason
    if top and choice.logprobs is not None:
        output.confidence += _confidences(choice.logprobs, top)


def _confidences(logprobs: Any, top: int) -> list[float]:
    """Negative mean of the largest log-probabilities of each token, from either endpoint's form."""
    content = getattr(logprobs, "content", None)
    if content is not None:
        tables = [[entry.logprob for entry in token.top_logprobs] for token in content]
    else:
        tables = [list((table or {}).values()) for table in logprobs.top_logprobs or []]
    largest = [sorted(table, reverse=True)[:top] for table in tables if table]
    return [-sum(table) / len(table) for table in largest]


def _generation(request: Request, output: _Output, cut: bool, error: str | None) -> Generation:
    if error is None and not cut and output.finish_reason is None:
        error = "the server ended the stream without a finish reason"
    if output.finish_reason is not None and error is None:
        reason: Any = "length" if output.finish_reason == "length" else "stop"
    else:
        reason = "aborted" if cut else "error"
    return Generation(
        request=request.id,
        text=output.text,
        tokens=output.tokens,
        prompt_tokens=output.prompt_tokens,
        cached_tokens=output.cached_tokens,
        finish_reason=reason,
        confidence=output.confidence or None,
        error=error if reason == "error" else None,
    )


def _one_line(error: BaseException) -> str:
    """The message without line breaks, cut short; headers and keys are not part of it."""
    return " ".join(str(error).split())[:_ERROR_LENGTH]
