"""`dynasor rank build-data`: prompts and the length of their answers, out of recorded ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from dynasor.commands.options import JsonOption


def rank_build_data(
    source: Annotated[
        str,
        typer.Argument(
            help="A trace, a file or folder of conversations (.json, .jsonl, .parquet), sharegpt, "
            "lmsys, or owner/name of a hub data set."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the data.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer",
            help="Counts the tokens of conversations: cl100k_base (ChatGPT), o200k_base, or a folder "
            "with a tokenizer.json.",
        ),
    ] = "cl100k_base",
    later_turns: Annotated[
        bool, typer.Option("--later-turns", help="Also answers later in a conversation.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--answers-of", help="Only conversations with this model.", show_default=False
        ),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            help="Suite with the questions of a trace that has no prompts, by their id, or by their "
            "place (`math500/17` is the 18th).",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            help="Limit of the run, where a trace does not say which samples it cut.",
            min=1,
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Collect prompts with the length of their answers, to train and to judge rankers.

    Writes train.jsonl, validation.jsonl, test.jsonl and card.json. Splits are by conversation, the
    same each time. Of a trace, the samples of a question make one example: their mean tokens, how far
    they spread, and which share a token limit cut.

    Examples:

        dynasor rank build-data sharegpt --out data/sharegpt

        dynasor rank build-data runs/mine/samples.jsonl --out data/mine
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from dynasor.ranking.build_data import build_data
    from dynasor.ranking.sources import examples_of_chat, examples_of_trace, is_trace
    from dynasor.ranking.token_count import token_count

    left_out: Counter[str] = Counter()
    about: dict[str, Any] = {"source": source}
    if is_trace(source):
        about |= {"kind": "trace", "tokenizer": "that of the recorded model"}
        examples = examples_of_trace(
            Path(source),
            prompts=_prompts(questions) if questions else None,
            max_tokens=max_tokens,
            left_out=left_out,
        )
    else:
        about |= {"kind": "conversations", "tokenizer": tokenizer, "answers_of": model}
        examples = examples_of_chat(
            source,
            token_count(tokenizer),
            later_turns=later_turns,
            model=model,
            left_out=left_out,
        )
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} examples"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("examples", total=None)
        card = build_data(
            examples, out, about, left_out, lambda count: progress.update(task, completed=count)
        )
    if as_json:
        typer.echo(json.dumps(card))
    else:
        _print(card, out)


def _prompts(spec: str) -> dict[str, str]:
    from dynasor.suites import load_suite

    queries = load_suite(spec).queries
    places = {f"/{place}": query.question for place, query in enumerate(queries)}
    return places | {query.id: query.question for query in queries}


def _print(card: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{card['source']} in {out}", title_justify="left")
    for heading in ("split", "examples", "first turns", "conversations"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, count in card["examples"].items():
        table.add_row(
            split,
            f"{count:,}",
            f"{card['first_turns'][split]:,}",
            f"{card['conversations'][split]:,}",
        )
    console = Console()
    console.print(table)
    quantiles = ", ".join(f"{mark} {value:,.0f}" for mark, value in card["tokens"].items())
    console.print(f"tokens of an answer, quantiles: {quantiles}", highlight=False)
    if card["examples_with_cut_answers"]:
        console.print(
            f"{card['examples_with_cut_answers']:,} examples have answers that a limit cut: "
            f"{card['cut_answers']}",
            highlight=False,
        )
    for reason, count in card["left_out"].items():
        console.print(f"left out: {count:,} {reason}", highlight=False, style="dim")
