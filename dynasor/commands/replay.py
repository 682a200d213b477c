"""`dynasor replay`: what any rule would have done on recorded samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import EarlyCutOption, JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.replay import ReplayResult


def replay(
    traces: Annotated[Path, typer.Argument(help="Trace file, .jsonl or .jsonl.gz.")],
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule", help="Stop rule, may be given several times.", show_default="default"
        ),
    ] = None,
    orders: Annotated[int, typer.Option("--orders", min=1, help="Random orders a query.")] = 100,
    wave: Annotated[int, typer.Option("--wave", min=1, help="Samples of a query in flight.")] = 1,
    max_samples: Annotated[
        int | None,
        typer.Option(
            "--max-samples",
            min=1,
            help="Full budget.",
            show_default="the fewest samples of any query, at most 64",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", help="Also replay one budget for all: a share of the full tokens."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the orders.")] = 0,
    evidence: Annotated[
        Path | None,
        typer.Option("--evidence", help="Weigh the rules' votes by this file of dynasor evidence."),
    ] = None,
    early_cut: EarlyCutOption = True,
    as_json: JsonOption = False,
) -> None:
    """Replay stop rules on recorded samples: accuracy, tokens and latency of each.

    Example: dynasor replay runs/embedded/full/samples.jsonl --rule default --rule fixed:4
    """
    from rich.console import Console
    from rich.progress import Progress

    from certaindex.stopping import parse_rule
    from certaindex.value import value_of_next_sample
    from dynasor.errors import ConfigError
    from dynasor.replay import collect_queries
    from dynasor.replay import replay as run_replay
    from dynasor.replay_budget import replay_budget
    from dynasor.traces import read_traces
    from dynasor.vote_weights import read_evidence

    if budget is not None and not 0 < budget <= 1:
        raise ConfigError(f"--budget = {budget}: must be above 0 and at most 1")
    try:
        rules = {text: parse_rule(text) for text in rule or ["default"]}
    except ValueError as error:
        raise ConfigError(f"--rule: {error}") from None
    console = Console(stderr=as_json)
    samples = (
        sample
        for sample in read_traces(traces, skip_torn_end=True)
        if sample.finish_reason not in ("aborted", "error")
    )
    queries = collect_queries(samples)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"replay of {len(queries)} queries", total=len(queries))
        result = run_replay(
            queries,
            rules,
            orders=orders,
            wave=wave,
            max_samples=max_samples,
            seed=seed,
            evidence=None if evidence is None else read_evidence(evidence),
            early_cut=early_cut,
            progress=lambda done, _: progress.update(task, completed=done),
        )
        if budget is not None:
            task = progress.add_task("global budget", total=orders)
            shared = replay_budget(
                queries,
                value_of_next_sample,
                budget=budget,
                orders=orders,
                max_samples=max_samples,
                seed=seed,
                progress=lambda done, _: progress.update(task, completed=done),
            )
            result = replace(result, rules=(*result.rules, shared))
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        _print(result, console)


def _print(result: ReplayResult, console: Console) -> None:
    from rich.table import Table

    def grade(text: str) -> str:
        return text if result.graded else "-"

    table = Table(
        title=f"{result.queries} queries, full budget {result.max_samples} samples "
        f"({grade(f'{100 * result.full_accuracy:.1f}%')}, {result.full_tokens:,.0f} tokens), "
        f"{result.orders} orders, wave {result.wave}",
        title_justify="left",
    )
    for heading in ("rule", "accuracy %", "loss, points", "tokens", "of full", "samples",
                    "same answer", "latency, tokens"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for row in result.rules:
        table.add_row(
            row.rule,
            grade(f"{100 * row.accuracy:.1f}"),
            grade(f"{row.loss:+.2f} [{row.loss_interval[0]:+.2f}, {row.loss_interval[1]:+.2f}]"),
            f"{row.tokens:,.0f}",
            f"{row.tokens_ratio:.3f}",
            f"{row.samples:.1f}",
            f"{100 * row.agreement:.1f}%",
            f"{row.latency:,.0f}",
        )
    console.print(table)
    if not result.graded:
        console.print("The trace lacks right answers (`gold`), so nothing is graded.")
