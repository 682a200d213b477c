"""What a reward model is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from algorithms.program import Prompt


class Attempt(NamedTuple):
    """A question and an answer to it, or the beginning of one up to the end of a step."""

    prompt: Prompt
    text: str


class RewardModel(Protocol):
    """Scores attempts. One event loop owns it; `start` comes first, `close` last.

    An outcome model is asked about whole answers, a process model about beginnings too; the same
    method serves both, since what a process model says of a step is what it says of the text that
    ends with it.
    """

    async def start(self) -> None:
        """Load the model or open the connections.

        Raises:
            dynasor.errors.DynasorError: if it cannot serve; the message says what to do.
        """
        ...

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """Reward of each attempt, 0 to 1, in their order; any exception fails them all."""
        ...

    async def close(self) -> None:
        """Free the model or the connections; may be called twice."""
        ...
