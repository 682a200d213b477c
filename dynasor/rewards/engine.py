"""An engine that also answers `score` requests: those go to a reward model, all others pass."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from math import isfinite
from typing import Any

from algorithms.program import Event, Generation, Request
from dynasor.engines.base import Capacity, Engine
from dynasor.rewards.base import Attempt, RewardModel
from dynasor.scheduling.gang import Hints

logger = logging.getLogger(__name__)

REMEMBERED = 65536
"""Rewards that are kept, so that an attempt is scored once."""
_ERROR_LENGTH = 300


class RewardedEngine:
    """Runs requests on an engine and scores on a reward model.

    Scores that are asked for while a batch is under way are the next batch. Output tokens of a score
    are 0: the bill counts what the reasoning model writes.

    Args:
        engine: for all but scores; started and closed with this one.
        rewards: for scores; started and closed with this one.
        batch: attempts scored in one call.
    """

    def __init__(self, engine: Engine, rewards: RewardModel, *, batch: int = 64) -> None:
        if batch < 1:
            raise ValueError(f"batch must be 1 or more, not {batch}")
        self._engine = engine
        self._rewards = rewards
        self._batch = batch
        self._known: OrderedDict[str, float] = OrderedDict()
        self._waiting: dict[str, Attempt] = {}
        self._asked: dict[str, list[asyncio.Future[float]]] = {}  # waiting ones, and those at work
        self._scoring: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Future[float]] = {}
        self._cut: set[str] = set()

    @property
    def tuning(self) -> Any:
        """What the engine set for speed on a CPU, None where it did nothing."""
        return getattr(self._engine, "tuning", None)

    async def start(self) -> None:
        """Start both."""
        await self._rewards.start()
        await self._engine.start()

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run a request, or score the attempt of a `score` request."""
        if request.kind != "score":
            async for event in self._engine.submit(request):
                yield event
            return
        reward = self._score(Attempt(request.prompt, request.prefix))
        self._running[request.id] = reward
        try:
            yield Generation(request.id, "", 0, reward=await reward)
        except asyncio.CancelledError:
            if request.id not in self._cut:
                raise
            yield Generation(request.id, "", 0, finish_reason="aborted")
        except Exception as error:  # a reward model raises whatever its parts raise
            message = " ".join(str(error).split())[:_ERROR_LENGTH] or type(error).__name__
            yield Generation(request.id, "", 0, finish_reason="error", error=f"reward: {message}")
        finally:
            self._running.pop(request.id, None)
            self._cut.discard(request.id)

    def _score(self, attempt: Attempt) -> asyncio.Future[float]:
        reward: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        key = json.dumps(attempt)
        if key in self._known:
            self._known.move_to_end(key)
            reward.set_result(self._known[key])
            return reward
        if key not in self._asked:
            self._waiting[key] = attempt
        self._asked.setdefault(key, []).append(reward)
        if self._scoring is None:
            self._scoring = asyncio.create_task(self._work())
        return reward

    async def _work(self) -> None:
        """Score what waits, batch after batch, until nothing does."""
        try:
            # What is asked for in the same turn of the loop belongs into one batch.
            await asyncio.sleep(0)
            while self._waiting:
                batch = dict(list(self._waiting.items())[: self._batch])
                for key in list(batch):
                    del self._waiting[key]
                    if all(reward.done() for reward in self._asked[key]):  # all were cut
                        del batch[key], self._asked[key]
                if batch:
                    await self._work_on(batch)
        finally:
            self._scoring = None

    async def _work_on(self, batch: dict[str, Attempt]) -> None:
        try:
            rewards = await self._rewards.score(list(batch.values()))
            _check(rewards, len(batch))
        except Exception as error:
            logger.warning("scoring failed: %s", error)
            for key in batch:
                for asked in self._asked.pop(key):
                    if not asked.done():
                        asked.set_exception(error)
            return
        for key, reward in zip(batch, rewards, strict=True):
            self._known[key] = reward
            for asked in self._asked.pop(key):
                if not asked.done():
                    asked.set_result(reward)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def abort(self, ids: Iterable[str]) -> None:
        """Cut requests, scores included."""
        others = []
        for name in ids:
            if name in self._running:
                self._cut.add(name)
                self._running[name].cancel()
            else:
                others.append(name)
        if others:
            await self._engine.abort(others)

    def hint(self, gang: str, hints: Hints) -> None:
        """Passed on."""
        self._engine.hint(gang, hints)

    def capacity(self) -> Capacity:
        """Of the engine."""
        return self._engine.capacity()

    async def close(self) -> None:
        """Close both."""
        if self._scoring is not None:
            self._scoring.cancel()
        try:
            await self._rewards.close()
        finally:
            await self._engine.close()


def _check(rewards: list[float], wanted: int) -> None:
    if len(rewards) != wanted:
        raise ValueError(f"{len(rewards)} rewards for {wanted} attempts")
    for reward in rewards:
        if not isfinite(reward) or not 0 <= reward <= 1:
            raise ValueError(f"a reward must be between 0 and 1, not {reward}")
