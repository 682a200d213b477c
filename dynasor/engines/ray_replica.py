"""One engine on Ray Serve: it streams events, and says whether it lives and how busy it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ray import serve

from algorithms.program import Event, Request
from dynasor.config import Config
from dynasor.engines.base import Capacity, Engine
from dynasor.engines.build import build_engine
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.placements import Placements
from dynasor.scheduling.scaling import replicas_wanted

EXPECTED = "expected_tokens"
"""Name of the metric by which Serve scales."""


class EngineReplica:
    """Runs the configured engine; what `RayServeEngine` talks to.

    Args:
        settings: the whole configuration, as plain values.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it, so a replica is ready once its model is loaded
        self, settings: Mapping[str, Any]
    ) -> None:
        config = Config.model_validate(settings)
        self._counts = config.scheduler.policy != "none"
        self._engine = self.engine_of(config)
        await self._engine.start()
        self._account = Placements()
        self._account.add(config.engine.max_running)

    @staticmethod
    def engine_of(config: Config) -> Engine:
        """The engine that it runs, not yet started."""
        return build_engine(config.engine, config.algorithm.seed, config.scheduler)

    async def generate(
        self, request: Request, hints: Hints, **_: Any
    ) -> AsyncGenerator[str | Event, None]:
        """The name of this replica, then the events of a request.

        Args:
            request: to run.
            hints: the latest on its gang.
        """
        yield serve.get_replica_context().replica_id.unique_id
        self._hint(request.program, hints)
        self._account.place(request)
        tokens: int | None = None
        try:
            async with aclosing(self._engine.submit(request)) as events:
                async for event in events:
                    tokens = event.tokens
                    yield event
        finally:
            self._account.end(request.id, tokens)

    async def tell(self, news: Mapping[str, Hints], **_: Any) -> None:
        """News of gangs."""
        for gang, hints in news.items():
            self._hint(gang, hints)

    def _hint(self, gang: str, hints: Hints) -> None:
        self._account.hint(gang, hints.tokens)
        self._engine.hint(gang, hints)

    async def cut(self, requests: Sequence[str], **_: Any) -> None:
        """Cut requests; each then ends in a generation `aborted`."""
        await self._engine.abort(requests)

    async def capacity(self) -> Capacity:
        """Of this engine."""
        return self._engine.capacity()

    async def measure(self, request: Request) -> int | None:
        """Tokens of a prompt; None where the engine cannot tell.

        Raises:
            ValueError: if the engine would refuse the request.
        """
        measure = getattr(self._engine, "measure", None)
        tokens: int | None = None if measure is None else await measure(request)
        return tokens

    async def counters(self) -> dict[str, float]:
        """What the engine's scheduler counts; empty where it counts nothing."""
        counters = getattr(self._engine, "counters", None)
        return {} if counters is None or not self._counts else dict(await counters())

    async def check_health(self) -> None:
        """Serve asks this; raises if the engine is dead, and waits for ever if it hangs."""
        check = getattr(self._engine, "check", None)
        if check is not None:
            await check()
        await self.counters()  # goes through the scheduler's loop

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks this: output tokens that are expected to come."""
        return {EXPECTED: self._account.replicas[0].expected}

    async def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None:
            await asyncio.shield(engine.close())


class ScaleByExpectedTokens:
    """Serve's autoscaling policy: as many replicas as the expected tokens need.

    Args:
        tokens_a_replica: see `ClusterConfig`.
    """

    def __init__(self, tokens_a_replica: float) -> None:
        self._tokens = tokens_a_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Replicas that are wanted; Serve holds them to the bounds and the delays."""
        metrics = context.aggregated_metrics or {}
        expected = metrics.get(EXPECTED, {}).values()
        return replicas_wanted(expected, self._tokens, context.target_num_replicas), {}
