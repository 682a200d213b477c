"""The picture of a search: what it tried, what cannot be beaten, and what was chosen."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from dynasor.bench.plots import COLOURS, STYLE
from dynasor.slo.prediction import Problem
from dynasor.slo.tune import Tuned, worthwhile


def save_pareto(tuned: Tuned, problem: Problem, path: Path) -> None:
    """Tokens against loss, and tokens against the 90th percentile of latency.

    Tokens and losses are those of the calibrated queries, for the tried as for the chosen.
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
        tokens, losses = _on_calibrated(tuned, problem)
        _loss(left, tuned, problem, tokens, losses)
        _latency(right, tuned, problem, tokens)
        _legend(figure, left)
        figure.savefig(path, bbox_inches="tight")
        plt.close(figure)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))


def _on_calibrated(
    tuned: Tuned, problem: Problem
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tokens and loss of all that was tried, means over classes."""
    shares = np.array([each.share * each.weight for each in problem.promises.values()])
    tokens, losses = [], []
    for name, promise in problem.promises.items():
        settings = [each.plan.settings[name] for each in tuned.tried]
        ended = problem.tables[name].of(settings, problem.splits[name].calibrate)
        tokens.append(ended.tokens.mean(axis=1))
        losses.append(ended.losses(promise.loss).mean(axis=1))
    return shares @ np.array(tokens) / shares.sum(), shares @ np.array(losses) / shares.sum()


def _scatter(
    axes: Axes, tuned: Tuned, tokens: NDArray[np.float64], height: NDArray[np.float64]
) -> None:
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
    _plain(axes.xaxis)
    axes.set_xlabel("output tokens a query")


def _plain(axis: Axis) -> None:
    """1, 2, 5, 10 and so on, in plain figures."""
    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _chosen_tokens(tuned: Tuned, problem: Problem) -> float:
    return problem.mean({name: each.tokens for name, each in tuned.expected.items()})


def _loss(
    axes: Axes,
    tuned: Tuned,
    problem: Problem,
    tokens: NDArray[np.float64],
    losses: NDArray[np.float64],
) -> None:
    _scatter(axes, tuned, tokens, 100 * losses)
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


def _latency(axes: Axes, tuned: Tuned, problem: Problem, tokens: NDArray[np.float64]) -> None:
    _scatter(axes, tuned, tokens, np.array([each.latency for each in tuned.tried]))
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
    _plain(axes.yaxis)
    axes.set(
        ylabel="90th percentile of latency, s",
        title=f"How long queries take at {problem.rate:g} a second",
    )
