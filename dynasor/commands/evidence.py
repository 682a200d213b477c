"""`dynasor evidence`: learn what the likelihood of a model's samples says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynasor.commands.options import JsonOption

if TYPE_CHECKING:
    from dynasor.learn_evidence import Lesson


def evidence(
    traces: Annotated[
        Path, typer.Argument(help="Samples of `dynasor record --logprobs`, .jsonl or .jsonl.gz.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File for --evidence and algorithm.evidence.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from recorded samples how far a model's likelier samples are the better ones.

    With the file, `weigh = "evidence"` weighs the votes of this model, and the stop rule `evidence`
    needs fewer of them.

    Example: dynasor evidence runs/mine/samples.jsonl --out mine.evidence.json
    """
    from dynasor.errors import DataError
    from dynasor.learn_evidence import learn_evidence
    from dynasor.replay import collect_queries
    from dynasor.traces import read_traces

    samples = (
        sample
        for sample in read_traces(traces, skip_torn_end=True)
        if sample.finish_reason not in ("aborted", "error")
    )
    lesson = learn_evidence(collect_queries(samples))
    if out is not None:
        try:
            out.write_text(lesson.evidence.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({error}); check the path") from error
    if as_json:
        told = {"evidence": asdict(lesson.evidence), "cut": lesson.cut._asdict()}
        typer.echo(json.dumps(lesson._asdict() | told))
    else:
        _print(lesson)


def _print(lesson: Lesson) -> None:
    from rich.console import Console
    from rich.table import Table

    learned = lesson.evidence
    table = Table(
        title=f"{learned.samples:,} samples of {lesson.queries:,} questions",
        title_justify="left",
    )
    for heading in ("likelihood, nats", "gives its siblings' answer", "weight of its vote"):
        table.add_column(heading, justify="right")
    for deviations in (-2, -1, 0, 1):
        value = learned.center + deviations * learned.scale
        table.add_row(
            f"{value:.2f}", f"{learned.probability(value):.1%}", f"{learned.weigh((value,)):.2f}"
        )
    console = Console()
    console.print(table)
    console.print(
        f"{lesson.agreed:.1%} of the samples gave the answer of their siblings; such a one was "
        f"likelier than another in {lesson.separation:.1%} of all pairs (50% is chance)",
        highlight=False,
    )
    cut = lesson.cut
    console.print(
        f"cutting a sample once its chance is below {cut.below:g} (looked at every {cut.every} tokens) "
        f"saves {cut.saved:.0%} of the tokens and loses {cut.lost:.1%} of the evidence"
        if cut.below
        else "cutting samples once they have become improbable would not pay: it is off",
        highlight=False,
    )
