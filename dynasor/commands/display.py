"""What the commands show: a progress bar while queries run, a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from algorithms.program import Event, Generation, Program, Request
from dynasor.bench.summary import Summary
from dynasor.outcome import Outcome


class QueryProgress:
    """A bar of finished queries with samples and tokens so far; an observer of the runtime."""

    def __init__(self, console: Console, name: str, total: int, done: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[samples]:>6} samples {task.fields[tokens]:>9,} tokens"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task(name, total=total, completed=done, samples=0, tokens=0)
        self._samples = self._tokens = 0

    def received(self, program: Program, request: Request, event: Event) -> None:
        """Count a sample."""
        if isinstance(event, Generation):
            self._samples += 1
            self._tokens += event.tokens
            self._progress.update(self._task, samples=self._samples, tokens=self._tokens)

    def stopped(self, program: Program, outcome: Outcome) -> None:
        """Count a query."""
        self._progress.advance(self._task)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def print_summaries(suite: str, summaries: Sequence[Summary], console: Console) -> None:
    """The table at the end of a benchmark."""
    table = Table(title=f"{suite}: {summaries[0].queries} questions", title_justify="left")
    headings = "system|accuracy %|change, points|tokens a query|of full|samples|stopped"
    for heading in headings.split("|"):
        words = heading in ("system", "stopped")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in summaries:
        reasons = sorted(row.reasons.items(), key=lambda item: -item[1])
        table.add_row(
            row.name,
            _percent(row.accuracy, row.accuracy_interval),
            _signed(row.accuracy_change, row.accuracy_change_interval),
            f"{row.tokens:,.0f}",
            _percent(row.tokens_ratio, row.tokens_ratio_interval, sign="%"),
            f"{row.samples:.1f}",
            ", ".join(f"{reason} {number}" for reason, number in reasons),
        )
    console.print(table)
    console.print("Intervals: 95%, bootstrap over questions.", style="dim")
    for row in summaries[1:]:
        if row.tokens_ratio is not None:
            console.print(
                f"{row.name}: {1 - row.tokens_ratio:.0%} of the full budget's tokens saved",
                style="bold",
                highlight=False,
            )


def _percent(value: float | None, interval: tuple[float, float] | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{100 * value:.1f}{sign}"
    return f"{100 * value:.1f}{sign} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _signed(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:+.1f} [{interval[0]:+.1f}, {interval[1]:+.1f}]"
