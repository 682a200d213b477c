"""What the runtime asks of an engine: run a request, cut requests, say how many fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Protocol

from algorithms.program import Event, Request
from dynasor.scheduling.gang import Hints


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many requests an engine runs at once, and which model it serves."""

    max_running: int
    model: str
    supports_seed: bool


class Engine(Protocol):
    """Runs requests. One event loop owns it; `start` comes first, `close` last."""

    async def start(self) -> None:
        """Load the model or open the connections.

        Raises:
            dynasor.errors.EngineError: if the engine cannot serve; the message says what to do.
        """
        ...

    def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run a request: progress events if it asks for them, then exactly one generation.

        A request that fails ends in a generation with `finish_reason="error"`, it does not raise:
        one bad request must not take its siblings down. Only a dead engine raises `EngineError`.
        """
        ...

    async def abort(self, ids: Iterable[str]) -> None:
        """Cut requests; each then ends in a generation `aborted` with the text so far."""
        ...

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang (a program), for whoever orders its requests; costs no waiting.

        Also its requests that are submitted later carry the latest hints. An engine that cannot
        use them ignores them.
        """
        ...

    def capacity(self) -> Capacity:
        """Size and model of the engine, known after `start`."""
        ...

    async def close(self) -> None:
        """Free the model or the connections; may be called twice."""
        ...
