"""What `dynasor bench online` shows: a bar for each run, a line when it has ended, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dynasor.bench.online_folder import PointResult
from dynasor.bench.online_plan import Point
from dynasor.bench.online_report import OnlineReport, RateRow
from dynasor.bench.reference import Reference
from dynasor.bench.slo import attainment, latencies_of, slowdown
from dynasor.bench.workload import Completion
from dynasor.intervals import Interval

SHOWN_CLASSES = 8
"""Classes whose latency alone is shown one by one."""


class OnlineProgress:
    """Watches a benchmark; see `dynasor.bench.online.Watch`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("unloaded latency", total=None)
        self._referenced = False

    def measured(self) -> None:
        """A query was answered by the idle engine."""
        self._progress.advance(self._task)

    def begin(self, point: Point, arrivals: int) -> None:
        """A run begins."""
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(_name(point), total=arrivals)

    def completed(self, completion: Completion) -> None:
        """An arrival was answered."""
        self._progress.advance(self._task)

    def ended(self, result: PointResult, reference: Reference) -> None:
        """One line for a run."""
        if not self._referenced:
            self._referenced = True
            self._print_reference(reference)
        counted = result.counted
        share = attainment([slowdown(c, reference.unloaded) for c in counted], result.point.scale)
        latencies = latencies_of(counted)
        self._console.print(
            f"{_name(result.point):<32} {_share(share):>6} in time of {len(counted):>4}   "
            f"p50 {_seconds(latencies.p50):>6}  p90 {_seconds(latencies.p90):>6}   "
            f"({result.seconds:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )

    def _print_reference(self, reference: Reference) -> None:
        self._line(
            f"idle engine: {_unloaded(reference.unloaded)}; "
            f"{reference.tokens:,.0f} tokens a query of vanilla"
        )
        if reference.tokens_per_second is not None:
            self._line(
                f"vanilla's capacity: {reference.capacity:.2f}/s at "
                f"{reference.tokens_per_second:,.0f} tokens/s"
            )

    def stop(self) -> None:
        """Show no more progress."""
        self._progress.stop()

    def _line(self, text: str) -> None:
        self._console.print(text, style="dim", highlight=False, soft_wrap=True)

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


def print_report(report: OnlineReport, console: Console) -> None:
    """The tables at the end."""
    console.print(_systems(report))
    for system in report.systems:
        if system.rates:
            seen = "1/s|in time|mean|p50|p90|p99|max|queries|cut|open|points"
            done = "1/s|queries/s|tokens/s|preempted|recomputed|KV max %|KV %"
            console.print(_table(system.name, seen, map(_service, system.rates)))
            console.print(_table(f"{system.name}: engine", done, map(_engine, system.rates)))
    console.print(
        f"In time: within {report.slo_scale:g} x the latency of such a query alone. Tightest scale: "
        f"at {report.scale_rate:g}/s. Cut: answered when due with the best so far (+due), not "
        "counted as in time. Open: without answer at the end. Points: accuracy against vanilla on "
        "the same questions. Intervals: 95%, bootstrap over queries.",
        style="dim",
    )
    late = [row.send_lateness_p99 for system in report.systems for row in system.rates]
    share = [row.generator_cpu for system in report.systems for row in system.rates]
    worst, cpu = max((x or 0 for x in late), default=0), max((x or 0 for x in share), default=0)
    console.print(
        f"Load generator: 99% of arrivals sent within {1000 * worst:.1f} ms of their time, "
        f"{cpu:.1%} of a core, both in the worst run.",
        style="dim",
        highlight=False,
    )
    for text, ratio, interval in (
        ("the rate of vanilla", report.rate_ratio, report.rate_ratio_interval),
        ("tighter SLO than vanilla", report.slo_ratio, report.slo_ratio_interval),
    ):
        if ratio is not None:
            console.print(
                f"ours: {ratio:.2f} times{_interval(interval, 2)} {text}",
                style="bold",
                highlight=False,
                markup=False,
            )


def _systems(report: OnlineReport) -> Table:
    table = Table(title="Systems", title_justify="left")
    headings = "system|meaning|rate at 90%, 1/s|tightest scale|accuracy %|change, points|tokens"
    for heading in headings.split("|"):
        table.add_column(heading, justify="left" if heading in ("system", "meaning") else "right")
    for row in report.systems:
        rate = "-" if row.max_rate_at_90 is None else f"{row.max_rate_at_90:.2f}"
        table.add_row(
            row.name,
            row.meaning,
            ("≥ " if row.max_rate_is_bound else "") + rate + _interval(row.max_rate_interval, 2),
            "-" if row.tightest_scale_at_90 is None else f"{row.tightest_scale_at_90:.2f}",
            "-" if row.accuracy is None else f"{100 * row.accuracy:.1f}",
            "-"
            if row.accuracy_change is None
            else f"{row.accuracy_change:+.1f}{_interval(row.accuracy_change_interval, 1)}",
            "-" if row.tokens is None else f"{row.tokens:,.0f}",
        )
    return table


def _table(title: str, headings: str, rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings.split("|"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _service(row: RateRow) -> list[str]:
    """What the users of a rate saw."""
    return [
        f"{row.rate:g}",
        _share(row.attainment),
        *(_seconds(x) for x in (row.mean, row.p50, row.p90, row.p99, row.longest)),
        str(row.queries),
        str(row.cut_short),
        str(row.unfinished),
        "-" if row.accuracy_change is None else f"{row.accuracy_change:+.1f}",
    ]


def _engine(row: RateRow) -> list[str]:
    """What the engine did at a rate."""
    return [
        f"{row.rate:g}",
        f"{row.queries_per_second:.2f}",
        f"{row.tokens_per_second:,.0f}",
        "-" if row.preemptions is None else f"{row.preemptions:.0f}",
        "-" if row.recomputed_tokens is None else f"{row.recomputed_tokens:,.0f}",
        "-" if row.kv_peak is None else f"{100 * row.kv_peak:.0f}",
        "-" if row.kv_mean is None else f"{100 * row.kv_mean:.0f}",
    ]


def _unloaded(latencies: Mapping[str, float]) -> str:
    if len(latencies) > SHOWN_CLASSES:
        least, most = min(latencies.values()), max(latencies.values())
        return f"{len(latencies)} classes, {least:.2f} to {most:.2f} s"
    return ", ".join(f"{name} {value:.2f} s" for name, value in latencies.items())


def _name(point: Point) -> str:
    repeat = f" #{point.repeat + 1}" if point.repeat else ""
    return f"{point.system} {point.rate:g}/s, SLO x{point.scale:g}{repeat}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _interval(interval: Interval | None, digits: int) -> str:
    return "" if interval is None else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
