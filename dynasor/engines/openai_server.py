"""One OpenAI-compatible server: its models, its streams, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import httpx
import openai
from openai import AsyncOpenAI

from algorithms.program import Request
from dynasor.engines.openai_body import body_of
from dynasor.engines.openai_stream import StreamedOutput
from dynasor.scheduling.gang import Hints

CONNECT_TIMEOUT = 10.0
COOL_DOWN = 30.0
"""Seconds that a server is passed over after it failed a request."""
MISSES = 2
"""Health checks in a row without an answer in time after which a server counts as hung."""
_ERROR_LENGTH = 300


class BrokenStreamError(ConnectionError):
    """The server ended a stream before the output was finished."""


UNAVAILABLE = (
    openai.APIConnectionError,
    openai.InternalServerError,
    httpx.TransportError,  # while a stream is read, the client lets these through
    BrokenStreamError,
    TimeoutError,
)
"""What another server may do better."""


class OpenAIServer:
    """See the module.

    Args:
        url: such as `http://localhost:8000/v1`.
        api_key: sent to it, never logged.
        timeout: seconds that it may be silent.
        retries: tries again after refused connections, 429 and 5xx, with growing pauses.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout: float, retries: int) -> None:
        limits = openai.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout))
        self.url = url
        self._client = AsyncOpenAI(
            base_url=url, api_key=api_key or "none", timeout=limits, max_retries=retries
        )
        self._api_key = api_key
        self._timeout = timeout
        self._failed_until = 0.0
        self._misses = 0
        self._attempts: set[asyncio.Timeout] = set()
        # Whether it takes vLLM's extra stream option; a server that refuses it is not asked again.
        self._counts_each_chunk = True

    @property
    def usable(self) -> bool:
        """Whether it is worth a request now."""
        return self._misses < MISSES and self._failed_until <= monotonic()

    def failed(self) -> None:
        """It failed a request that it could have served."""
        self._failed_until = monotonic() + COOL_DOWN

    async def models(self) -> list[str]:
        """Names of its models."""
        async with asyncio.timeout(self._timeout):
            return [str(model.id) async for model in self._client.models.list()]

    async def check(self, patience: float) -> None:
        """See whether it answers within so many seconds; if it is hung, end what it was asked."""
        if not await self._answers(patience):
            self._misses += 1
        else:
            self._misses = 0
        if self._misses >= MISSES:
            for attempt in list(self._attempts):
                attempt.reschedule(asyncio.get_running_loop().time())

    async def _answers(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                # Any answer will do: a server that lists no models may still serve.
                await self._client.with_options(max_retries=0).models.list()
        except UNAVAILABLE:
            return False
        except openai.OpenAIError:
            return True
        return True

    @contextmanager
    def _attempt(self, leash: asyncio.Timeout) -> Iterator[None]:
        self._attempts.add(leash)
        try:
            yield
        finally:
            self._attempts.discard(leash)

    async def stream(
        self, request: Request, model: str | None, hints: Hints | None, output: StreamedOutput
    ) -> None:
        """Run a request to its end, and fold what comes into `output`.

        Raises:
            TimeoutError: if the server falls silent, or is found to be hung.
            openai.OpenAIError, httpx.TransportError, BrokenStreamError, UnreadableStreamError: if it
                fails otherwise.
        """
        async with asyncio.timeout(None) as leash:
            with self._attempt(leash):
                async with await self._open(request, model, hints) as stream:
                    while True:
                        async with asyncio.timeout(self._timeout):
                            chunk = await anext(stream, None)
                        if chunk is None:
                            break
                        output.take(chunk)
        if not output.finished:
            raise BrokenStreamError("the server ended the stream without a finish reason")

    async def _open(self, request: Request, model: str | None, hints: Hints | None) -> Any:
        if not self._counts_each_chunk:
            return await self._create(request, model, {}, hints)
        try:
            return await self._create(request, model, {"continuous_usage_stats": True}, hints)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            # The option or the request is at fault: it is the option if the server takes the rest.
            stream = await self._create(request, model, {}, hints)
            self._counts_each_chunk = False
            return stream

    async def _create(
        self, request: Request, model: str | None, options: Mapping[str, Any], hints: Hints | None
    ) -> Any:
        client = self._client
        create: Any = (
            client.completions.create
            if isinstance(request.prompt, str)
            else client.chat.completions.create
        )
        return await create(**body_of(request, model, options, hints))

    def describe(self, problem: BaseException) -> str:
        """The message on one line, cut short, without the key even if the server echoes it."""
        text = " ".join(str(problem).split())
        if isinstance(problem, TimeoutError):
            hung = self._misses >= MISSES
            text = "it answers no more" if hung else f"silent for {self._timeout:g} s"
        elif isinstance(problem, openai.APIConnectionError) and problem.__cause__ is not None:
            text = f"{text} ({problem.__cause__ or type(problem.__cause__).__name__})"
        elif isinstance(problem, httpx.TransportError):
            text = f"the connection broke ({text or type(problem).__name__})"
        elif not isinstance(problem, openai.OpenAIError | BrokenStreamError):
            text = f"the answer cannot be read ({text or type(problem).__name__})"
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return f"{self.url}: {text[:_ERROR_LENGTH]}"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
