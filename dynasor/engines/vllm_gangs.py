"""The front end's side of the gang scheduler in vLLM: hints with requests, and news of gangs later."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from itertools import count
from typing import Any

from dynasor.config import VLLM_ORDERS, SchedulerConfig
from dynasor.errors import EngineError
from dynasor.scheduling.gang import GANG, Hints
from dynasor.scheduling.latest import LatestHints

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Gangs whose priority is kept for the requests that they submit later."""
_GANG_SCHEDULER = "dynasor.scheduling.vllm_scheduler.GangScheduler"
_COUNTING_SCHEDULER = "dynasor.scheduling.vllm_steps.CountingScheduler"


class VLLMGangs:
    """What an engine tells the scheduler inside vLLM.

    Args:
        settings: the `[scheduler]` section.
    """

    def __init__(self, settings: SchedulerConfig) -> None:
        self._settings = settings
        self._takes_hints = settings.policy not in VLLM_ORDERS
        self._engine: Any = None  # vllm.v1.engine.async_llm.AsyncLLM
        self._latest = LatestHints()
        self._news: dict[str, None] = {}  # gangs whose latest hints were not yet sent
        self._sending: asyncio.Task[None] | None = None
        self._order = count()
        self._priorities: OrderedDict[str, int] = OrderedDict()

    def engine_arguments(self) -> dict[str, Any]:
        """Arguments of vLLM's engine that put the scheduler in."""
        policy = self._settings.policy
        if policy == "none":
            return {}
        if policy in VLLM_ORDERS:
            chosen = {"scheduling_policy": "priority"} if policy == "vllm-priority" else {}
            return {"scheduler_cls": _COUNTING_SCHEDULER, **chosen}
        return {
            "scheduler_cls": _GANG_SCHEDULER,
            "additional_config": {"dynasor": self._settings.model_dump()},
        }

    def connect(self, engine: Any) -> None:
        """The engine has started; None: it is closed."""
        self._engine = engine

    def request_arguments(self, gang: str) -> dict[str, Any]:
        """Extra arguments of a gang's request: its id and its latest hints."""
        if not self._takes_hints:
            return {}
        return {GANG: gang, **self._latest.of(gang).as_arguments()}

    def priority(self, gang: str) -> int:
        """vLLM's priority of a gang's requests: its place in the order of arrival."""
        if self._settings.policy != "vllm-priority":
            return 0
        if gang not in self._priorities:
            self._priorities[gang] = next(self._order)
            if len(self._priorities) > REMEMBERED:
                self._priorities.popitem(last=False)
        return self._priorities[gang]

    def hint(self, gang: str, hints: Hints) -> None:
        """Keep the hints for later requests, and send them for those that wait or run."""
        if not self._takes_hints:
            return
        known = gang in self._latest
        self._latest.note(gang, hints)
        if known:  # the first hints travel with the first requests
            self._news[gang] = None
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._news:
            news = {gang: self._latest.of(gang).as_arguments() for gang in self._news}
            self._news.clear()
            try:
                await self.ask("hints", news=news)
            except EngineError as error:
                # The requests themselves will meet a dead engine; the order is a service only.
                logger.debug("hints were not taken: %s", error)
                return

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Call an operation of the scheduler, see `CountingScheduler` and `GangScheduler`.

        Raises:
            EngineError: if the scheduler is vLLM's own, or the engine is dead.
        """
        if self._settings.policy == "none":
            raise EngineError(
                "vLLM's own scheduler counts nothing and takes no hints: "
                'set scheduler.policy = "vllm" for the same order with counters'
            )
        try:
            core = self._engine.engine_core
            return await core.call_utility_async("gang_call", operation, arguments)
        except Exception as error:  # vLLM raises whatever its parts raise
            raise EngineError(f"vLLM's scheduler did not answer {operation!r}: {error}") from error
