"""Start and end the engine of a command, and say how."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from rich.console import Console

from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.engines.build import build_engine


@asynccontextmanager
async def started(settings: Config, console: Console) -> AsyncIterator[Engine]:
    """The engine of a configuration, started; closed at the end."""
    engine = build_engine(settings.engine, settings.algorithm.seed)
    begin = monotonic()
    try:
        with console.status(f"starting {settings.engine.kind} with {settings.engine.model}"):
            await engine.start()
        tuning = getattr(engine, "tuning", None)
        if tuning is not None:
            console.print(tuning.line(), style="dim", markup=False, highlight=False)
        console.print(
            f"{settings.engine.kind} is ready: {engine.capacity().model} "
            f"({monotonic() - begin:.0f} s)",
            style="dim",
            markup=False,
            highlight=False,
        )
        yield engine
    finally:
        await engine.close()
