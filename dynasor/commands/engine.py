"""Start and end the engine of a command, and say how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

import typer
from rich.console import Console

from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.engines.build import build_engine
from dynasor.rewards.build import with_rewards
from dynasor.vote_weights import weigher
from dynasor.whole_samples import check_replay

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; Ctrl-C cuts what runs, closes the engine and ends in exit code 130."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        typer.echo("dynasor: stopped; the same command goes on where it was", err=True)
        raise typer.Exit(130) from None


@asynccontextmanager
async def started(settings: Config, console: Console) -> AsyncIterator[Engine]:
    """The engine of a configuration, started; closed at the end.

    Raises:
        ConfigError: if votes are to be weighed by what is not known, before a model is loaded for it, or
            a trace cannot answer the program.
        EngineError: if the engine does not start.
    """
    weigher(settings)
    check_replay(settings)
    engine = with_rewards(
        settings, build_engine(settings.engine, settings.algorithm.seed, settings.scheduler)
    )
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
