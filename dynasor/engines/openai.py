"""Any OpenAI-compatible server, or several of them.

Which server a request goes to is the rule of `dynasor.scheduling.routing`: a program stays on the server
that has its prompt's KV while that has room. A server that dies or falls silent is left, and what it had
not finished is run elsewhere: a request that had no token yet on whichever server answers, one that had
begun on one other server, once. Every request streams, so that cutting it closes the connection and the
server stops generating.

Tokens are counted by the server's usage figures. A server that sends them with every chunk (vLLM's
`continuous_usage_stats`) also gives exact counts for cut requests; for another, a cut request
counts one token a chunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from math import ceil

from algorithms.program import Event, Generation, Progress, Request
from dynasor.config import VLLM_ORDERS, SchedulerConfig
from dynasor.engines.base import Capacity
from dynasor.engines.going_on import going_on, joined
from dynasor.engines.openai_server import UNAVAILABLE, OpenAIServer
from dynasor.engines.openai_stream import StreamedOutput
from dynasor.errors import EngineError
from dynasor.scheduling.admission import Gate
from dynasor.scheduling.aging import aging_of
from dynasor.scheduling.authors import Authors
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.latest import LatestHints
from dynasor.scheduling.placements import Placements
from dynasor.scheduling.policies import Fcfs, parse_policy

logger = logging.getLogger(__name__)


class _Attempt:
    """A request on its way: what was sent to the present server, on top of what was told before.

    Attributes:
        request: as the program asked it.
        news: progress that its reader has yet to be told, None at the end.
        sent: what the present server was asked.
        server: its number.
        output: of the present attempt.
        kept: told before it was lost, and not generated again.
        told: so far.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.news: asyncio.Queue[Progress | None] = asyncio.Queue()
        self.told = self.kept = Progress(request.id, "", 0)
        self.sent = request
        self.server = 0
        self.output = StreamedOutput(request, self._tell)

    def begin_again(self) -> None:
        """Elsewhere, after what was told; see `going_on`."""
        self.sent = going_on(self.request, self.told)
        goes_on = self.sent is not self.request
        self.kept = self.told if goes_on else Progress(self.request.id, "", 0)
        self.output = StreamedOutput(self.sent, self._tell)

    def _tell(self) -> None:
        """Something has come: say so if it is time."""
        every = self.request.report_every
        tokens = self.kept.tokens + self.output.tokens
        if every and tokens >= self.told.tokens + every:
            self.told = joined(self.kept, self.output.progress())
            self.news.put_nowait(self.told)

    def generation(self, *, cut: bool, error: str | None) -> Generation:
        """The end of the request."""
        return joined(self.kept, self.output.generation(cut=cut, error=error))


class OpenAIEngine:
    """Sends requests to OpenAI-compatible servers.

    A chat request's `prefix` is sent as the assistant's last message, to be continued; this is
    vLLM's `continue_final_message`, which other servers may refuse.

    Args:
        base_urls: such as `http://localhost:8000/v1`; at least one.
        model: its name on the servers; the first that the first server lists if None.
        api_key: sent to the servers, never logged.
        max_running: requests in flight over all servers; others wait. Each server is taken to have
            room for an equal part of them.
        timeout: seconds that a server may be silent.
        retries: tries again after refused connections, 429 and 5xx, with growing pauses.
        scheduler: which of the waiting requests is sent next; first come, first served if None.
        gang_hints: send each request's gang and hints along, for a vLLM that runs our scheduler;
            other servers may refuse the field.
        health_every: with several servers, seconds between two looks at each, and seconds that it has
            to answer. One that hangs is left after two looks in vain, 4 x health_every at the latest.
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
        health_every: float = 5.0,
    ) -> None:
        self._servers = [
            OpenAIServer(url, api_key=api_key, timeout=timeout, retries=retries)
            for url in base_urls
        ]
        self._placements = Placements()
        self._authors: Authors[int] = Authors()
        for _ in self._servers:
            self._placements.add(ceil(max_running / len(self._servers)))
        self._model = model
        self._max_running = max_running
        self._gate = _gate(max_running, scheduler)
        self._hints = LatestHints()
        self._gang_hints = gang_hints
        self._health_every = health_every
        self._watch: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Task[str | None]] = {}

    async def start(self) -> None:
        """Ask the servers for their models; those that do not answer are left for later.

        Raises:
            EngineError: if no server answers, or one that does lacks the model.
        """
        listed: dict[str, list[str]] = {}
        errors = []
        answers = await asyncio.gather(
            *(server.models() for server in self._servers), return_exceptions=True
        )
        for server, answer in zip(self._servers, answers, strict=True):
            if isinstance(answer, BaseException):
                errors.append(server.describe(answer))
                server.failed()
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
        if len(self._servers) > 1 and self._watch is None:
            self._watch = asyncio.create_task(self._look_after_the_servers())

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

    async def _look_after_the_servers(self) -> None:
        while True:
            await asyncio.sleep(self._health_every)
            checks = (server.check(self._health_every) for server in self._servers)
            await asyncio.gather(*checks, return_exceptions=True)

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream one request; see `Engine.submit`."""
        attempt = _Attempt(request)
        # A task of its own: cutting is cancelling it, wherever it stands.
        task = asyncio.create_task(self._run(attempt))
        task.add_done_callback(lambda _: attempt.news.put_nowait(None))
        self._running[request.id] = task
        try:
            while (progress := await attempt.news.get()) is not None:
                self._authors.wrote(request, attempt.server, progress.text)
                yield progress
        finally:
            self._running.pop(request.id, None)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        cut = task.cancelled()
        end = attempt.generation(cut=cut, error=None if cut else task.result())
        self._authors.wrote(request, attempt.server, end.text)
        yield end

    async def _run(self, attempt: _Attempt) -> str | None:
        """Run the request on one server, or on the next; returns what went wrong."""
        request = attempt.request
        gang = request.program
        async with self._gate.slot(request.id, gang, self._hints.of(gang)) as ticket:
            error: str | None = "cut"
            try:
                error = await self._try_servers(attempt)
                ticket.finished = error is None
            finally:
                ticket.tokens = attempt.output.tokens
                self._placements.end(request.id, None if error else ticket.tokens)
        return error

    async def _try_servers(self, attempt: _Attempt) -> str | None:
        failed: list[int] = []
        begun = False
        while True:
            number = attempt.server = self._place(attempt.request, failed)
            server = self._servers[number]
            hints = self._hints.of(attempt.request.program) if self._gang_hints else None
            try:
                await server.stream(attempt.sent, self._model, hints, attempt.output)
            except Exception as problem:
                error = server.describe(problem)
                if not isinstance(problem, UNAVAILABLE):
                    return error
                server.failed()
                failed.append(number)
                if begun or len(failed) == len(self._servers):
                    return error
                begun = attempt.output.tokens > 0
                logger.warning("trying another server for %s: %s", attempt.request.id, error)
                attempt.begin_again()
            else:
                return None

    def _place(self, request: Request, failed: Sequence[int]) -> int:
        for facts, server in zip(self._placements.replicas, self._servers, strict=True):
            facts.usable = server.usable
        return self._placements.place(request, failed, self._authors.of(request))

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
        self._placements.hint(gang, hints.tokens)

    def capacity(self) -> Capacity:
        """Requests in flight that were asked for, and the model."""
        return Capacity(self._max_running, self._model or "unknown", supports_seed=True)

    async def close(self) -> None:
        """Close the connections; requests that still run are cut."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self.abort(list(self._running))
        await asyncio.gather(*(server.close() for server in self._servers))


def _gate(limit: int, scheduler: SchedulerConfig | None) -> Gate:
    if scheduler is None or scheduler.policy in VLLM_ORDERS:
        return Gate(limit, Fcfs())
    return Gate(limit, parse_policy(scheduler.policy), aging_of(scheduler))
