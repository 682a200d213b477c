"""Ranks on Ray Serve: a deployment that scores the prompts of all endpoints, and who asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from dynasor.config import Config
from dynasor.ranking.scorer import load_ranking

ANSWERED_WITHIN = 1.0
"""Seconds that a batch may take. No query waits that long: the scorer has a deadline of its own, and
keeps scores that come late for the next time."""


class RankReplica:
    """Scores prompts; Serve gathers those of all endpoints into batches.

    Args:
        settings: the whole configuration.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        ranking = Config.model_validate(settings).ranking
        self._ranker, _ = load_ranking(ranking.model)
        self.score.set_max_batch_size(ranking.batch)
        self.score.set_batch_wait_timeout_s(ranking.window)

    @serve.batch  # type: ignore[untyped-decorator]  # Ray has no types; it must stand at the method
    async def score(self, prompts: list[str]) -> list[float]:
        """One score a prompt."""
        scores = await asyncio.to_thread(self._ranker.score, prompts)
        return [float(score) for score in scores]


class RemoteRanker:
    """A ranker that asks the deployment of `RankReplica`; called on the scorer's thread.

    Args:
        handle: of the deployment.
        name: of the ranker.
    """

    def __init__(self, handle: Any, name: str) -> None:
        self._handle = handle
        self._name = name

    @property
    def name(self) -> str:
        """What it is."""
        return self._name

    def score(self, prompts: Any) -> NDArray[np.float64]:
        """One score a prompt."""
        until = monotonic() + ANSWERED_WITHIN
        calls = [self._handle.score.remote(prompt) for prompt in prompts]
        return np.array([call.result(timeout_s=max(until - monotonic(), 0.0)) for call in calls])
