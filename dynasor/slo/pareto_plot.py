"""The picture of a search: what it tried, what cannot be beaten, and what was chosen."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynasor.bench.plots import COLOURS, STYLE
from dynasor.slo.prediction import Problem
from dynasor.slo.tune import Tuned, worthwhile


def save_pareto(tuned: Tuned, problem: Problem, path: Path) -> None:
    """Tokens against loss, and tokens against the 90th percentile of latency."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
        _loss(left, tuned, problem)
        _latency(right, tuned, problem)
        _legend(figure, left)
        figure.savefig(path, bbox_inches="tight")
        plt.close(figure)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))


def _scatter(axes: Axes, tuned: Tuned, values: list[float]) -> None:
    tokens = np.array([each.tokens for each in tuned.tried])
    height = np.array(values)
    best = {id(each) for each in worthwhile(tuned.tried)}
    front = np.array([id(each) in best for each in tuned.tried])
    kept = np.array([each.kept for each in tuned.tried])
    for chosen, colour, marker, label in (
        (~front & ~kept, "#c8ccd4", "x", "breaks latency or tokens"),
        (~front & kept, COLOURS[0], "o", "keeps latency and tokens"),
        (front & ~kept, COLOURS[3], "x", "cannot be beaten, breaks them"),
        (front & kept, COLOURS[2], "o", "cannot be beaten"),
    ):
        axes.scatter(tokens[chosen], height[chosen], s=26, c=colour, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("output tokens a query")


def _chosen_tokens(tuned: Tuned, problem: Problem) -> float:
    return problem.mean({name: each.tokens for name, each in tuned.expected.items()})


def _loss(axes: Axes, tuned: Tuned, problem: Problem) -> None:
    _scatter(axes, tuned, [100 * each.loss for each in tuned.tried])
    loss = problem.mean({name: each.loss for name, each in tuned.expected.items()})
    bound = problem.mean({name: tuned.chosen(name).figures.bound for name in problem.promises})
    x = _chosen_tokens(tuned, problem)
    axes.vlines(x, 100 * loss, 100 * bound, color=COLOURS[1], linewidth=2)
    axes.plot(x, 100 * loss, "*", markersize=16, color=COLOURS[1], label="chosen, to its bound")
    promised = problem.mean({name: each.epsilon or 0.0 for name, each in problem.promises.items()})
    axes.axhline(100 * promised, color=COLOURS[1], linestyle="--", linewidth=1)
    axes.annotate(
        "promised", (0.99, 100 * promised), xycoords=("axes fraction", "data"),
        ha="right", va="bottom", fontsize=8, color=COLOURS[1],
    )  # fmt: skip
    axes.set(
        ylabel="loss against the full budget, points", title="What is lost for how many tokens"
    )


def _latency(axes: Axes, tuned: Tuned, problem: Problem) -> None:
    _scatter(axes, tuned, [each.latency for each in tuned.tried])
    chosen = problem.mean(
        {name: each.latency.percentile(90) for name, each in tuned.expected.items()}
    )
    axes.plot(_chosen_tokens(tuned, problem), chosen, "*", markersize=16, color=COLOURS[1])
    for name, promise in problem.promises.items():
        for percent, seconds in promise.targets:
            if percent == 90:
                axes.axhline(seconds, color=COLOURS[1], linestyle="--", linewidth=1)
                label = "promised" if len(problem.promises) == 1 else f"promised to {name}"
                axes.annotate(
                    label, (0.99, seconds), xycoords=("axes fraction", "data"),
                    ha="right", va="bottom", fontsize=8, color=COLOURS[1],
                )  # fmt: skip
    axes.set_yscale("log")
    axes.set(
        ylabel="90th percentile of latency, s",
        title=f"How long queries take at {problem.rate:g} a second",
    )
