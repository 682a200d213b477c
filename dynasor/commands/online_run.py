"""Run an online benchmark, live or in virtual time, and show what it finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from certaindex.equivalence import AnswerEquivalence
from dynasor.bench.live_stage import LiveStage
from dynasor.bench.online import Benchmark, Stage, run_online, settings_of
from dynasor.bench.online_folder import OnlineFolder
from dynasor.bench.online_report import OnlineReport
from dynasor.bench.online_results import report_of
from dynasor.bench.simulated_bench import Simulation
from dynasor.bench.systems import OnlineSystem
from dynasor.commands.engine import started
from dynasor.commands.online_display import OnlineProgress, print_report
from dynasor.config import Config
from dynasor.errors import EngineError
from dynasor.ranking.scorer import ranking


async def bench_and_show(
    benchmark: Benchmark,
    settings: Config,
    vanilla: OnlineSystem,
    traffic: str,
    virtual: Simulation | None,
    out: Path,
    fresh: bool,
    console: Console,
) -> OnlineReport:
    """Run what the folder lacks; tables, pictures and online.json of all that it then holds.

    After Ctrl-C, or when an engine has died, tables and online.json of the runs that ended.

    Args:
        benchmark: what is compared.
        settings: of the engine and the samples.
        vanilla: the system that all are measured by.
        traffic: as given, for the folder.
        virtual: what takes the engine's place, or None.
        out: the folder.
        fresh: throw an earlier benchmark there away.
        console: for progress and tables.
    """
    engine = {
        "engine": settings.engine.model_dump(),
        "algorithm": settings.algorithm.model_dump(),
        "rule": settings.allocator.rule,
        "wave": settings.allocator.wave,
        "ranking": settings.ranking.model_dump(),
        "simulated": None if virtual is None else virtual.settings,
    }
    with (
        OnlineFolder(out, settings_of(benchmark, engine, traffic), fresh=fresh) as folder,
        AnswerEquivalence() as equivalence,
        OnlineProgress(console) as progress,
    ):
        if folder.results:
            console.print(f"going on after {len(folder.results)} runs in {out}", style="dim")

        @asynccontextmanager
        async def stage(system: OnlineSystem) -> AsyncIterator[Stage]:
            if virtual is not None:
                yield virtual.stage
                return
            async with _live(
                benchmark, settings, vanilla, system, equivalence, progress, console
            ) as live:
                yield live

        try:
            await run_online(benchmark, folder, stage, progress)
        except (EngineError, asyncio.CancelledError):
            if folder.results:  # what is there so far is worth a look
                progress.stop()
                _tell(benchmark, folder, console)
            raise
        report = _tell(benchmark, folder, console)
    from dynasor.bench.online_plots import save_pictures  # matplotlib takes a second to import

    await asyncio.to_thread(save_pictures, report, out)
    console.print(f"results and pictures: {out}", markup=False, highlight=False, soft_wrap=True)
    return report


def _tell(benchmark: Benchmark, folder: OnlineFolder, console: Console) -> OnlineReport:
    """Tables and online.json of what the folder holds."""
    assert folder.reference is not None, "runs are measured by it"
    report = report_of(benchmark.systems, folder, benchmark.ladder(folder.reference))
    print_report(report, console)
    (folder.path / "online.json").write_text(
        json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8"
    )
    return report


@asynccontextmanager
async def _live(
    benchmark: Benchmark,
    settings: Config,
    vanilla: OnlineSystem,
    system: OnlineSystem,
    equivalence: AnswerEquivalence,
    progress: OnlineProgress,
    console: Console,
) -> AsyncIterator[Stage]:
    """The real engine with the scheduler of a system."""
    scheduler = settings.scheduler.model_copy(update={"policy": system.policy})
    with ranking(settings.ranking) as scorer:
        async with started(settings.model_copy(update={"scheduler": scheduler}), console) as engine:
            yield LiveStage(
                engine,
                vanilla,
                settings,
                benchmark.suite,
                benchmark.profile,
                benchmark.chats,
                equivalence,
                scorer,
                progress.measured,
            )
