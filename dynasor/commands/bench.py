"""`dynasor bench`: a suite with the full budget and with stop rules, a table and a report."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import (
    BaseUrlOption,
    BenchSeedOption,
    ConfigOption,
    EarlyCutOption,
    EngineOption,
    EvidenceOption,
    InstructionOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    SamplesOption,
    TemperatureOption,
    TuneOption,
    WaveOption,
    WeighOption,
    bench_seed,
    overrides,
)

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.bench.offline import System
    from dynasor.bench.summary import Row, Summary
    from dynasor.config import Config
    from dynasor.engines.base import Engine
    from dynasor.suites import Suite


def bench(
    suite: Annotated[
        str,
        typer.Argument(
            help="`embedded`, a .jsonl file, or a Hugging Face dataset "
            "(gsm8k, math500, aime2024, amc2023 or owner/name)."
        ),
    ],
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule", help="Stop rule, may be given several times.", show_default="default"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first so many questions.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder; the same command goes on there.", show_default="runs/SUITE"
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw an earlier run in --out away.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Also run the full budget.")
    ] = True,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", help="Also share out this part of the full budget's tokens over all."
        ),
    ] = None,
    traces: Annotated[
        Path | None, typer.Option("--traces", help="Trace file for --engine replay.")
    ] = None,
    question_field: Annotated[str | None, typer.Option(help="Field of the question.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="Field of the right answer.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hugging Face dataset.")] = None,
    extractor: Annotated[
        str | None, typer.Option(help="How answers are read: boxed, gsm8k, choice, number, math...")
    ] = None,
    instruction: InstructionOption = None,
    weigh: WeighOption = None,
    evidence: EvidenceOption = None,
    early_cut: EarlyCutOption = True,
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    wave: WaveOption = None,
    seed: BenchSeedOption = None,
    tune_cpu: TuneOption = True,
    as_json: JsonOption = False,
) -> None:
    """Answer a suite with and without certainty-guided stopping, and report what it saved.

    A run that was stopped or killed goes on where it was when the same command is given again.
    """
    from rich.console import Console

    from dynasor.commands.engine import run
    from dynasor.config import load_config
    from dynasor.suites import load_suite

    given = overrides(
        engine=engine,
        model=model,
        base_url=base_url,
        traces=traces,
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        wave=wave,
        seed=seed,
        budget=budget,
        extractor=extractor,
        instruction=instruction,
        weigh=weigh,
        evidence=evidence,
        early_cut=early_cut,
        tune_cpu=tune_cpu,
    )
    settings = bench_seed(load_config(config, given))
    questions = load_suite(
        suite,
        limit=limit,
        split=split,
        question_field=question_field,
        answer_field=answer_field,
    )
    rules = rule or [settings.allocator.rule]
    path = out or Path("runs") / Path(questions.name).name
    console = Console(stderr=as_json)
    summaries = run(_bench(settings, questions, rules, baseline, path, fresh, console))
    if as_json:
        typer.echo(json.dumps({"suite": questions.name, "systems": [asdict(s) for s in summaries]}))
    failed = sum(summary.failed for summary in summaries)
    if failed:
        console.print(f"{failed} requests failed; see {path}", style="red")
        raise typer.Exit(1)


async def _bench(
    settings: Config,
    suite: Suite,
    rules: list[str],
    baseline: bool,
    path: Path,
    fresh: bool,
    console: Console,
) -> list[Summary]:
    from dynasor.bench.offline import global_budget_system, systems_of
    from dynasor.bench.report import write_report
    from dynasor.bench.summary import summarise
    from dynasor.commands.display import print_summaries
    from dynasor.commands.engine import started

    systems = systems_of(settings, rules, baseline)
    rows: dict[str, list[Row]] = {}
    summaries: list[Summary] = []
    async with started(settings, console) as engine:
        while systems:
            system = systems.pop(0)
            begin = monotonic()
            whole, rows[system.name] = await _run(
                settings, suite, system, engine, path, fresh, console
            )
            first = next(iter(rows.values())) if len(rows) > 1 else None
            seconds = monotonic() - begin if whole else None
            summaries.append(summarise(system.name, rows[system.name], first, seconds))
            if baseline and len(rows) == 1:
                shared = global_budget_system(settings, rows[system.name])
                systems += [shared] if shared else []
    print_summaries(suite.name, summaries, console)
    # The replay in the report takes some seconds of computing.
    report = await asyncio.to_thread(write_report, path, suite, settings, summaries, rows)
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    return summaries


async def _run(
    settings: Config,
    suite: Suite,
    system: System,
    engine: Engine,
    path: Path,
    fresh: bool,
    console: Console,
) -> tuple[bool, list[Row]]:
    """Run one system; whether it was run in one go, and its rows."""
    from certaindex.equivalence import AnswerEquivalence
    from dynasor.bench.offline import folder_of, run_system
    from dynasor.commands.display import QueryProgress

    model = engine.capacity().model
    with folder_of(path, settings, suite, system, model, fresh) as folder:
        whole = not folder.outcomes and not folder.finished_samples
        if not whole:
            console.print(
                f"{system.name}: going on with {len(folder.outcomes)} finished queries and "
                f"{folder.finished_samples} finished samples in {folder.path}",
                style="dim",
            )
        done = len(folder.outcomes)
        with (
            QueryProgress(console, system.name, len(suite.queries), done) as progress,
            AnswerEquivalence() as equivalence,
        ):
            rows = await run_system(settings, suite, system, engine, folder, equivalence, progress)
        return whole, rows
