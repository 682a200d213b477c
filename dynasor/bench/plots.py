"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from cycler import cycler

matplotlib.use("Agg")  # before pyplot: there may be no screen

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#4c566a", "#d1495b", "#00798c", "#edae49", "#66a182", "#8d6a9f", "#5aa9e6", "#c06c3e")
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.prop_cycle": cycler(color=COLOURS),
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.dpi": 120,
}
REASON_COLOURS = {
    "certain": "#66a182",
    "hopeless": "#d1495b",
    "complete": "#4c566a",
    "budget": "#edae49",
    "deadline": "#8d6a9f",
    "failed": "#000000",
}


class Point(NamedTuple):
    """One setting of one family of rules on the frontier."""

    family: str
    label: str
    tokens: float
    accuracy: float


def save_frontier(points: Sequence[Point], path: Path, *, highlight: str = "default") -> None:
    """Accuracy (%) against tokens a query; one line a family of rules, the default as a star."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 4.8))
        families = list(dict.fromkeys(point.family for point in points))
        for number, family in enumerate(families):
            line = sorted((p for p in points if p.family == family), key=lambda p: p.tokens)
            x, y = [p.tokens for p in line], [100 * p.accuracy for p in line]
            if family == highlight:
                axes.plot(x, y, "*", markersize=17, color="#d1495b", label=family, zorder=5)
            elif family == "fixed":
                axes.plot(x, y, "o-", color="#4c566a", linewidth=2, label="fixed n", zorder=4)
                for point in line[:: max(1, len(line) // 6)]:
                    axes.annotate(
                        point.label.split(":")[-1],
                        (point.tokens, 100 * point.accuracy),
                        textcoords="offset points",
                        xytext=(4, -12),
                        fontsize=8,
                        color="#4c566a",
                    )
            else:
                axes.plot(
                    x, y, ".-", linewidth=1, alpha=0.85, color=COLOURS[2 + number % 6], label=family
                )
        axes.set(
            xlabel="output tokens a question",
            ylabel="accuracy, %",
            title="Accuracy against tokens: up and to the left is better",
        )
        axes.legend(fontsize=8, loc="lower right")
        _save(figure, path)


def save_samples(systems: Mapping[str, Sequence[Mapping[str, Any]]], most: int, path: Path) -> None:
    """How many samples each question took, by system."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 3.6))
        width = 0.8 / len(systems)
        for number, (name, rows) in enumerate(systems.items()):
            counts = np.bincount([row["samples"] for row in rows], minlength=most + 1)[: most + 1]
            place = np.arange(most + 1) + (number - (len(systems) - 1) / 2) * width
            axes.bar(place, counts, width, label=name, color=COLOURS[number % len(COLOURS)])
        axes.set(
            xlabel="samples", ylabel="questions", title="Samples a question", xlim=(0, most + 1)
        )
        axes.legend(fontsize=8)
        _save(figure, path)


def save_calibration(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Share of right answers by certainty at the stop, with the number of questions in each bin."""
    edges = np.linspace(0, 1, 11)
    certainty = np.array([row["certainty"] for row in rows])
    right = np.array([bool(row["correct"]) for row in rows], dtype=float)
    bins = np.clip(np.digitize(certainty, edges) - 1, 0, 9)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 4.4))
        axes.plot([0, 1], [0, 100], "--", color="#4c566a", alpha=0.5, linewidth=1)
        for number in range(10):
            inside = bins == number
            if not inside.any():
                continue
            share, size = right[inside].mean(), int(inside.sum())
            # Wilson's interval: sensible for few questions and at 0% and 100%.
            centre, half = _wilson(share, size)
            x = float(certainty[inside].mean())
            axes.vlines(x, 100 * (centre - half), 100 * (centre + half), color="#00798c")
            axes.plot(x, 100 * share, "o", color="#00798c", markersize=5 + min(12, size**0.5))
            axes.annotate(
                f"{size}", (x, 100 * share), textcoords="offset points", xytext=(9, 5), fontsize=8
            )
        axes.set(
            xlabel="certaindex at the stop",
            ylabel="right answers, %",
            title="Does certainty tell the right from the wrong?",
            xlim=(-0.03, 1.03),
            ylim=(-3, 105),
        )
        _save(figure, path)


def save_reasons(systems: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Why each system stopped, and how often the answer was right then."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 0.9 + 0.7 * len(systems)))
        for place, (_name, rows) in enumerate(systems.items()):
            _reason_bar(axes, place, rows)
        axes.set_yticks(range(len(systems)), list(systems))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="questions", title="What was stopped, and why (share of right answers)")
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.legend(
            handles.values(), handles.keys(), fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
        )
        _save(figure, path)


def _reason_bar(axes: Axes, place: int, rows: Sequence[Mapping[str, Any]]) -> None:
    left = 0
    for reason, colour in REASON_COLOURS.items():
        stopped = [row for row in rows if row["reason"] == reason]
        if not stopped:
            continue
        axes.barh(place, len(stopped), left=left, color=colour, label=reason, height=0.6)
        graded = [row["correct"] for row in stopped if row["correct"] is not None]
        if graded and len(stopped) > 0.04 * len(rows):
            axes.text(
                left + len(stopped) / 2,
                place,
                f"{100 * sum(graded) / len(graded):.0f}%",
                ha="center",
                va="center",
                color="white",
                fontsize=9,
            )
        left += len(stopped)


def _wilson(share: float, size: int, z: float = 1.96) -> tuple[float, float]:
    """Centre and half width of Wilson's score interval."""
    scale = 1 + z * z / size
    centre = (share + z * z / (2 * size)) / scale
    half = z / scale * (share * (1 - share) / size + z * z / (4 * size * size)) ** 0.5
    return centre, half


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
