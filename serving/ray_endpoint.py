"""An endpoint on Ray Serve: the same application as on one machine, and what it tells all others."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from starlette.types import Receive, Scope, Send

from certaindex.equivalence import AnswerEquivalence
from dynasor.config import Config
from dynasor.engines.ray_serve import RayServeEngine
from dynasor.ranking.scorer import LengthScorer, load_ranking
from serving.admission_share import GlobalView
from serving.app import create_app, with_front_door
from serving.engine_guard import EngineGuard
from serving.keys import Keys
from serving.logs import configure
from serving.ray_ranks import RemoteRanker
from serving.server import COMPARERS, CUT_GRACE, READERS
from serving.tracing import tracer_of

logger = logging.getLogger(__name__)

REPORT_EVERY = 1.0
"""Seconds between two reports of an endpoint to the global view."""
REPORT_WITHIN = 0.5
"""Seconds that a report may take; no query waits for it in any case."""
LEARN_EVERY = 1.0
"""Seconds between two looks at what the replicas have room for."""
HEARD_WITHIN = 6.0
"""Seconds that an endpoint waits at its start for places of its own; then it has as many as all may."""
NAMESPACE = "dynasor"
VIEW = "global-view"
ERROR = 500  # characters of an error that are shown


class Endpoint:
    """The front door, the routes and the runtime in a process of Serve's, behind Serve's proxy.

    Args:
        settings: the whole configuration.
        keys: who may ask.
        engine: handle of the engine replicas.
        ranker: handle of the rank predictor, or None.
    """

    def __init__(
        self, settings: Mapping[str, Any], keys: Keys, engine: Any, ranker: Any = None
    ) -> None:
        self._config = Config.model_validate(settings)
        self._keys = keys
        self._engine = engine
        self._ranker = ranker
        self._on_exit = ExitStack()
        self._working: list[asyncio.Task[None]] = []

    def __serve_build_asgi_app__(self) -> Any:
        """What Serve calls for each connection and for the begin and the end."""

        async def serve_connection(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(scope, receive, _without_name(send))

        return serve_connection  # uvicorn takes no bound method for ASGI 3

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._door(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._end()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        configure()
        readers = min(READERS, self._config.server.max_queries)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(readers, "reader"))
        equivalence = self._on_exit.enter_context(AnswerEquivalence(workers=COMPARERS))
        guard = EngineGuard(lambda: RayServeEngine(self._engine), tracer_of(os.environ))
        app = create_app(self._config, self._keys, equivalence, os.environ, guard, self._scorer())
        self._app, self._door = app, with_front_door(app, self._config, self._keys)
        self._guard, self._service = guard, app.state.service
        await self._service.engine.start()
        self._view: Any = None
        self._heard = asyncio.Event()
        self._working = [asyncio.create_task(each()) for each in (self._report, self._learn)]
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARD_WITHIN):
                await self._heard.wait()

    def _scorer(self) -> LengthScorer | None:
        ranking = self._config.ranking
        if self._ranker is None:
            return None
        ranker, calibration = load_ranking(ranking.model)
        scorer = LengthScorer(
            RemoteRanker(self._ranker, ranker.name),
            calibration,
            deadline=ranking.deadline,
            window=ranking.window,
            batch=ranking.batch,
        )
        self._on_exit.callback(scorer.close)
        return scorer

    async def drain(self, seconds: float) -> None:
        """Take no more queries; return once all have ended, after so long with their best answers."""
        self._door.draining = self._app.state.draining = True
        self._service.audits.drop()
        if not await self._ended_within(seconds):
            self._service.conclude()
            await self._ended_within(CUT_GRACE)

    async def _ended_within(self, seconds: float) -> bool:
        """Whether no query is left, waiting so long for that."""
        try:
            async with asyncio.timeout(seconds):
                await self._service.idle.wait()
        except TimeoutError:
            return False
        return True

    async def _end(self) -> None:
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        if self._view is not None:
            self._view.leave.remote(_me())
        self._service.audits.drop()
        self._service.conclude()
        await self._service.engine.close()
        self._on_exit.close()

    async def _report(self) -> None:
        """Tell the global view what is here and learn this endpoint's share, again and again."""
        known = True
        while True:
            engine = self._guard.engine
            expected = engine.expected() if isinstance(engine, RayServeEngine) else 0.0
            try:
                if self._view is None:
                    self._view = await asyncio.to_thread(global_view, self._config)
                async with asyncio.timeout(REPORT_WITHIN):
                    self._door.max_queries = await self._view.report.remote(
                        _me(),
                        len(self._service.live),
                        expected,
                        self._door.max_queries,
                        self._config.server.max_queries,
                        self._config.cluster.max_expected_tokens,
                    )
                if self._door.max_queries:
                    self._heard.set()
                known = True
            except (RayError, TimeoutError, ValueError) as error:
                self._view = None  # what it said last holds until there is one again
                if known:
                    problem = str(error).split("\n")[0][:ERROR] or type(error).__name__
                    logger.warning("no news of the global view: %s", problem)
                known = False
            await asyncio.sleep(REPORT_EVERY)

    async def _learn(self) -> None:
        """Keep to what the replicas are now: those of a new version may come after this endpoint."""
        while True:
            await asyncio.sleep(LEARN_EVERY)
            if isinstance(engine := self._guard.engine, RayServeEngine):
                await engine.learn()


def _without_name(send: Send) -> Send:
    """Send answers without their ids: Serve's proxy adds them, as it gave them to the requests."""

    async def pass_on(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            message = {**message, "headers": headers}
        await send(message)

    return pass_on


def _me() -> str:
    """Name of this endpoint."""
    return str(serve.get_replica_context().replica_id.unique_id)


def global_view(config: Config) -> Any:
    """The actor that knows all endpoints; made where there is none. Ray starts it anew if it dies."""
    return (
        ray.remote(GlobalView)
        .options(
            name=f"{config.cluster.name}-{VIEW}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            num_cpus=0,
        )
        .remote()
    )
