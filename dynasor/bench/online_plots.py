"""The pictures of the online benchmark; one colour a system in all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from dynasor.bench.online_report import OnlineReport, RateRow, SystemRow
from dynasor.bench.plots import STYLE  # which chooses a backend without a screen
from dynasor.bench.slo import TARGET
from dynasor.bench.systems import OURS, VANILLA

COLOURS = {VANILLA: "#4c566a", OURS: "#d1495b"}
_OTHERS = (
    "#00798c",
    "#edae49",
    "#66a182",
    "#8d6a9f",
    "#5aa9e6",
    "#c06c3e",
    "#9a9a9a",
    "#2e4057",
    "#b5838d",
    "#7cb518",
    "#f15bb5",
    "#7a4419",
)
_MARKERS = "osD^vP"


def save_pictures(report: OnlineReport, folder: Path) -> list[Path]:
    """Attainment by rate, attainment by SLO scale and latency by rate, as PNGs in a folder."""
    pictures: dict[str, Callable[[Axes, OnlineReport], None]] = {
        "attainment_by_rate.png": _attainment_by_rate,
        "attainment_by_scale.png": _attainment_by_scale,
        "latency_by_rate.png": _latency_by_rate,
    }
    paths = []
    for name, draw in pictures.items():
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(8, 4.6))
            draw(axes, report)
            paths.append(folder / name)
            _save(figure, axes, paths[-1])
    return paths


def colour_of(name: str, systems: Sequence[SystemRow]) -> str:
    """The colour of a system: its own, or the next of those for ablation and rivals."""
    if name in COLOURS:
        return COLOURS[name]
    others = [system.name for system in systems if system.name not in COLOURS]
    return _OTHERS[others.index(name) % len(_OTHERS)]


def _attainment_by_rate(axes: Axes, report: OnlineReport) -> None:
    for number, system in enumerate(report.systems):
        rows = [row for row in system.rates if row.attainment is not None]
        if not rows:
            continue
        colour, width = colour_of(system.name, report.systems), _width(system.name)
        x = [row.rate for row in rows]
        axes.plot(
            x,
            [100 * (row.attainment or 0) for row in rows],
            f"{_MARKERS[number % len(_MARKERS)]}-",
            color=colour,
            linewidth=width,
            markersize=5,
            label=system.name,
            zorder=2 + width,
        )
        if system.name in COLOURS:
            intervals = [row.attainment_interval or (0.0, 1.0) for row in rows]
            low, high = ([100 * each[side] for each in intervals] for side in (0, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
            _mark_rate(axes, system, colour)
    _target(axes)
    axes.set(
        xlabel="queries a second",
        ylabel="answers in time, %",
        ylim=(0, 104),
        title=f"Which rate holds an SLO of {report.slo_scale:g} x the unloaded latency?",
    )
    _log_rates(axes, report)


def _mark_rate(axes: Axes, system: SystemRow, colour: str) -> None:
    if system.max_rate_at_90 is None:
        return
    axes.plot([system.max_rate_at_90] * 2, [0, 100 * TARGET], ":", color=colour, linewidth=1.2)
    bound = "≥ " if system.max_rate_is_bound else ""
    axes.annotate(
        f"{bound}{system.max_rate_at_90:.2f}/s",
        (system.max_rate_at_90, 4),
        textcoords="offset points",
        xytext=(5, 0),
        fontsize=9,
        color=colour,
    )


def _attainment_by_scale(axes: Axes, report: OnlineReport) -> None:
    largest = report.slo_scale
    for number, system in enumerate(report.systems):
        points = sorted(system.scales.items())
        if not points:
            continue
        largest = max(largest, system.tightest_scale_at_90 or 0)
        colour, width = colour_of(system.name, report.systems), _width(system.name)
        x, y = [scale for scale, _ in points], [100 * share for _, share in points]
        many = len(points) > 10  # every query of a run tells a scale; else each is a run
        axes.plot(
            x,
            y,
            "-" if many else f"{_MARKERS[number % len(_MARKERS)]}-",
            drawstyle="steps-post" if many else "default",
            color=colour,
            linewidth=width,
            markersize=5,
            label=system.name,
            zorder=2 + width,
        )
    _target(axes)
    axes.set(
        xlabel="SLO scale (deadline / unloaded latency of the class)",
        ylabel="answers in time, %",
        xlim=(0, 1.3 * largest),
        ylim=(0, 104),
        title=f"Which SLO holds at {report.scale_rate:g} queries a second?",
    )


def _latency_by_rate(axes: Axes, report: OnlineReport) -> None:
    for system in report.systems:
        colour, width = colour_of(system.name, report.systems), _width(system.name)
        for style, quantile in (("-", _p50), ("--", _p90)):
            rows = [(row.rate, quantile(row)) for row in system.rates]
            known = [(rate, value) for rate, value in rows if value is not None]
            axes.plot(
                [rate for rate, _ in known],
                [value for _, value in known],
                f"{style}",
                marker="o",
                markersize=3.5,
                color=colour,
                linewidth=width,
                label=system.name if style == "-" else None,
                zorder=2 + width,
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(
        xlabel="queries a second",
        ylabel="latency, seconds",
        title="Latency of a query: median (solid), nine in ten (dashed)",
    )
    _log_rates(axes, report)


def _p50(row: RateRow) -> float | None:
    return row.p50


def _p90(row: RateRow) -> float | None:
    return row.p90


def _width(name: str) -> float:
    return 2.4 if name in COLOURS else 1.3


def _target(axes: Axes) -> None:
    axes.axhline(100 * TARGET, color="black", linewidth=0.8, alpha=0.6)
    axes.annotate(
        f"{TARGET:.0%}",
        (1, 100 * TARGET),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(-22, 3),
        fontsize=8,
    )


def _log_rates(axes: Axes, report: OnlineReport) -> None:
    """Rates on a logarithmic axis, with the measured ones as ticks."""
    rates = sorted({row.rate for system in report.systems for row in system.rates})
    if not rates or rates[0] <= 0:
        return
    axes.set_xscale("log")
    ticks: list[float] = []
    for rate in rates:
        if not ticks or rate / ticks[-1] > 1.22:
            ticks.append(rate)
    axes.set_xticks(ticks, [f"{rate:.3g}" for rate in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    if axes.get_legend_handles_labels()[0]:  # none where no query was answered
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
