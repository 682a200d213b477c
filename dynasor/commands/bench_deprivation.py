"""`dynasor bench deprivation`: accuracy of chains that are cut early, with and without Certaindex."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
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

    from dynasor.bench.chain_folder import Chain
    from dynasor.bench.deprivation import Point, Saving
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
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the chains and the picture; the same command goes on there.",
            show_default="runs/SUITE-deprivation",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw an earlier run in --out away.")
    ] = False,
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

    Each finished chain is kept; another --rule looks at the same ones anew.

    Example: dynasor bench deprivation math500 --base-url http://localhost:8000/v1 --max-tokens 8192
    """
    from rich.console import Console

    from certaindex.stopping import parse_rule
    from dynasor.bench.deprivation import curve, cut_by, saving_of
    from dynasor.bench.deprivation_plot import save_deprivation
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
        decides = parse_rule(text)
    except ValueError as error:
        raise ConfigError(f"--rule: {error}") from None
    graded = sum(query.gold is not None for query in questions.queries)
    if not graded:
        raise DataError(f"{suite}: no question has a right answer to compare with")
    path = out or Path("runs") / f"{Path(questions.name).name}-deprivation"
    console = Console(stderr=as_json)
    chains = run(_run(settings, questions, path, fresh, console))
    failed = graded - len(chains)
    if chains:
        longest = max(chain.tokens for chain in chains)
        limits = sorted({max(1, round(longest * n / points)) for n in range(1, points + 1)})
        cuts = cut_by(decides, chains)
        rows, saving = curve(cuts, limits), saving_of(cuts)
        _print_curve(questions.name, text, len(chains), rows, console)
        _print_saving(saving, len(chains), console)
        save_deprivation(rows, text, path / "curve.png")
        console.print(f"picture: {path / 'curve.png'}", markup=False, highlight=False)
        if as_json:
            told = {"suite": questions.name, "rule": text, "chains": len(chains), "failed": failed}
            told |= {"saving": asdict(saving), "points": [asdict(row) for row in rows]}
            typer.echo(json.dumps(told))
    if failed:
        console.print(f"{failed} chains failed; the same command tries them again", style="red")
        raise typer.Exit(1)


async def _run(
    settings: Config, suite: Suite, path: Path, fresh: bool, console: Console
) -> list[Chain]:
    from dynasor.bench.chain_folder import ChainFolder
    from dynasor.bench.deprivation import run_chains
    from dynasor.bench.offline import System, settings_of
    from dynasor.commands.display import QueryProgress
    from dynasor.commands.engine import started

    async with started(settings, console) as engine:
        whole = System("chains", "", "never")
        made_by = settings_of(settings, suite, whole, engine.capacity().model)
        with ChainFolder(path, made_by, fresh=fresh) as folder:
            done, total = len(folder.chains), len(suite.queries)
            if done:
                console.print(f"going on with {done} finished chains in {path}", style="dim")
            with QueryProgress(console, "chains", total, done) as progress:
                return await run_chains(settings, suite, engine, folder, progress)


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


def _print_saving(saving: Saving, chains: int, console: Console) -> None:
    low, high = saving.tokens_ratio_interval
    less, more = saving.accuracy_change_interval
    lines = [
        f"early stop of {saving.stopped} of {chains} chains: {saving.tokens_ratio:.1%} of the tokens "
        f"[{low:.1%}, {high:.1%}], probes included ({saving.probe_share:.1%} of them); "
        f"{saving.accuracy_change:+.1f} points [{less:+.1f}, {more:+.1f}]"
    ]
    if saving.cached_share is not None:
        lines.append(
            f"probes: {saving.cached_share:.1%} of their prompts' tokens were in the KV cache"
        )
    console.print("\n".join(lines), highlight=False)


def _percent(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
