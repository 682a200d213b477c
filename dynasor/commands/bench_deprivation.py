"""`dynasor bench deprivation`: accuracy of chains that are cut early, with and without Certaindex."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import (
    BaseUrlOption,
    BenchSeedOption,
    ConfigOption,
    EngineOption,
    InstructionOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    SetOption,
    TemperatureOption,
    TuneOption,
    bench_seed,
    overrides,
)

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.bench.deprivation import Chain, Point
    from dynasor.config import Config
    from dynasor.suites import Suite


def bench_deprivation(
    suite: Annotated[
        str, typer.Argument(help="As for `dynasor bench`: math500, aime2024, amc2023...")
    ],
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first so many questions.")
    ] = None,
    points: Annotated[
        int, typer.Option("--points", min=2, max=100, help="Places on the curve.")
    ] = 12,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="Early stop.", show_default="stable, by algorithm.cot.effort"),
    ] = None,
    instruction: InstructionOption = None,
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    seed: BenchSeedOption = None,
    setting: SetOption = None,
    tune_cpu: TuneOption = True,
    as_json: JsonOption = False,
) -> None:
    """Cut chains of thought after t tokens, ask for the answer, and see how often it is right.

    Example: dynasor bench deprivation math500 --base-url http://localhost:8000/v1 --max-tokens 8192
    """
    from rich.console import Console

    from certaindex.stopping import parse_rule
    from dynasor.bench.deprivation import curve
    from dynasor.commands.engine import run
    from dynasor.config import load_config
    from dynasor.errors import ConfigError, DataError
    from dynasor.programs import rule_of
    from dynasor.suites import load_suite

    given = overrides(
        engine=engine,
        model=model,
        base_url=base_url,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        instruction=instruction,
        algorithm="dynasor-cot",
        settings=setting,
        tune_cpu=tune_cpu,
    )
    settings = bench_seed(load_config(config, given))
    questions = load_suite(suite, limit=limit)
    text = rule or rule_of(settings)
    try:
        parse_rule(text)
    except ValueError as error:
        raise ConfigError(f"--rule: {error}") from None
    console = Console(stderr=as_json)
    chains = run(_run(settings, questions, text, console))
    if not chains:
        raise DataError(f"{suite}: no question has a right answer to compare with")
    longest = max(chain.tokens for chain in chains)
    limits = sorted({max(1, round(longest * n / points)) for n in range(1, points + 1)})
    rows = curve(chains, limits)
    _print_curve(questions.name, text, len(chains), rows, console)
    if as_json:
        told = {"suite": questions.name, "rule": text, "chains": len(chains)}
        typer.echo(json.dumps(told | {"points": [asdict(row) for row in rows]}))


async def _run(settings: Config, suite: Suite, rule: str, console: Console) -> list[Chain]:
    from certaindex.stopping import parse_rule
    from dynasor.bench.deprivation import run_chains
    from dynasor.commands.display import QueryProgress
    from dynasor.commands.engine import started

    async with started(settings, console) as engine:
        with QueryProgress(console, "chains", len(suite.queries), 0) as progress:
            return await run_chains(settings, suite, engine, parse_rule(rule), progress)


def _print_curve(suite: str, rule: str, chains: int, rows: list[Point], console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"{suite}: {chains} chains, {rule}", title_justify="left")
    for heading in ("cut after", "accuracy %", "tokens", "with early stop, %", "tokens"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row.limit:,}",
            _percent(row.accuracy, row.accuracy_interval),
            f"{row.tokens:,.0f}",
            _percent(row.early_accuracy, row.early_accuracy_interval),
            f"{row.early_tokens:,.0f}",
        )
    console.print(table)


def _percent(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
