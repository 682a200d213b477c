"""`dynasor rank eval`: how good rankers are on held-out examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from dynasor.ranking.evaluate import Evaluation
    from dynasor.ranking.examples import LengthExample


def rank_eval(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of `dynasor rank build-data`, of which the test split counts, or a data "
            "file."
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Folder of a trained ranker, or blend, encoder, cheap, or prompt-length; may be "
            "given several times, then the others are compared with the first.",
            show_default="blend",
        ),
    ] = None,
    turns: Annotated[
        str, typer.Option("--turns", help="Which answers of a conversation: first, later or all.")
    ] = "all",
    draws: Annotated[
        int, typer.Option("--draws", help="Bootstrap data sets for the intervals.", min=10)
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap and the queue.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare predicted order with true lengths: Kendall's tau, Spearman, NDCG, and a queue.

    The queue is one server at 90% load that takes the request with the shortest predicted answer
    first: how much sooner do requests end than first come first served, and how near does that come to
    knowing all lengths. Lengths that a token limit cut count as far as their order is sure.

    Examples:

        dynasor rank eval data/sharegpt

        dynasor rank eval data/sharegpt --model prompt-length --model cheap --model runs/my-ranker
    """
    from rich.console import Console
    from rich.progress import Progress

    from dynasor.errors import ConfigError
    from dynasor.ranking.build_data import read_split
    from dynasor.ranking.evaluate import evaluate, score_all
    from dynasor.ranking.model_folder import DEFAULT, load_ranker

    names = model or [DEFAULT]
    if len(set(names)) < len(names):
        raise ConfigError(f"--model is given twice: {', '.join(names)}")
    rankers = {name: load_ranker(name) for name in names}
    examples = _chosen(read_split(data, "test"), turns, data)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        scores = {}
        for name, ranker in rankers.items():
            task = progress.add_task(f"{name} scores", total=len(examples))
            scores[name] = score_all(ranker, examples, partial(progress.advance, task))
        task = progress.add_task("queue and intervals", total=len(scores))
        found = evaluate(
            scores,
            examples,
            draws=draws,
            seed=seed,
            progress=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        rows = [each.to_json() for each in found]
        typer.echo(json.dumps(rows[0] if len(rows) == 1 else {"n": rows[0]["n"], "models": rows}))
    else:
        cut = sum(example.cut > 0 for example in examples)
        print_evaluations(found, f"{data}: {len(examples):,} prompts", cut, Console())


def _chosen(examples: list[LengthExample], turns: str, data: Path) -> list[LengthExample]:
    from dynasor.errors import ConfigError, DataError

    if turns not in ("first", "later", "all"):
        raise ConfigError(f"--turns must be first, later or all, not {turns!r}")
    chosen = [each for each in examples if turns == "all" or (each.turn > 0) == (turns == "later")]
    if not chosen:
        raise DataError(f"{data}: holds no {turns} turns; choose others with --turns")
    return chosen


def print_evaluations(found: list[Evaluation], title: str, cut: int, console: Console) -> None:
    """A table with a line for each ranker."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for row in found:
        table.add_column(row.model, justify="right", overflow="fold")
    for name, show in _measures(list(found[0].shortest)).items():
        table.add_row(name, *map(show, found))
    console.print(table)
    console.print(
        "Intervals: 95%, bootstrap over conversations, for the queue over its runs. "
        "Queue: one server, 90% load, mean latency.",
        style="dim",
        highlight=False,
    )
    if cut:
        console.print(
            f"{cut:,} lengths were cut by a limit and count as lower bounds.", style="dim"
        )


def _measures(shares: list[float]) -> dict[str, Callable[[Evaluation], str]]:
    def found(share: float) -> Callable[[Evaluation], str]:
        return lambda row: f"{row.shortest[share]:.0%}"

    return {
        "Kendall's tau": lambda row: _with_interval(row.tau, row.tau_interval),
        "  more than the first": lambda row: (
            ""
            if row.tau_change is None
            else _with_interval(row.tau_change, row.tau_change_interval)
        ),
        "Spearman": lambda row: _with_interval(row.spearman, row.spearman_interval),
        "NDCG": lambda row: _with_interval(row.ndcg, row.ndcg_interval),
        **{f"of the shortest {share:.0%}, found": found(share) for share in shares},
        "times sooner than FCFS": lambda row: _with_interval(
            row.latency_ratio_to_fcfs, row.latency_ratio_to_fcfs_interval
        ),
        "share of the oracle's gain": lambda row: _with_interval(
            row.share_of_gain, row.share_of_gain_interval
        ),
    }


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
