"""A Python function as a reward model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from algorithms.program import Prompt
from dynasor.errors import ConfigError
from dynasor.rewards.base import Attempt

RewardFunction = Callable[[Prompt, str], float]
"""Question and answer so far to a reward, 0 to 1."""


class FunctionReward:
    """Calls a function for each attempt, in a thread, so that it may take its time."""

    def __init__(self, function: RewardFunction) -> None:
        self._function = function

    async def start(self) -> None:
        """Nothing to load."""

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """What the function says of each attempt."""
        return await asyncio.to_thread(lambda: [float(self._function(*each)) for each in attempts])

    async def close(self) -> None:
        """Nothing to free."""


def function_named(name: str) -> RewardFunction:
    """The function that a setting names as `module:function`.

    Raises:
        ConfigError: if there is none.
    """
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ConfigError(f"algorithm.reward.model = {name!r}: must be module:function")
    try:
        found: Any = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"algorithm.reward.model = {name!r}: {error}") from None
    if not callable(found):
        raise ConfigError(f"algorithm.reward.model = {name!r}: is not a function")
    named: RewardFunction = found
    return named
