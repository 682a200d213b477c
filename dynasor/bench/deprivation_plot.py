"""The picture of token deprivation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from dynasor.bench.deprivation import Point
from dynasor.bench.plots import COLOURS, STYLE  # which chooses a backend without a screen


def save_deprivation(points: Sequence[Point], rule: str, path: Path) -> None:
    """Accuracy of chains that are cut early against what they cost, with and without early stop."""
    plain = [(p.tokens, p.accuracy, *p.accuracy_interval) for p in points]
    early = [(p.early_tokens, p.early_accuracy, *p.early_accuracy_interval) for p in points]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.4), constrained_layout=True)
        for number, (name, line) in enumerate(
            [("cut and asked", plain), (f"the same, with early stop ({rule})", early)]
        ):
            colour = COLOURS[number]
            tokens, accuracy, low, high = np.array(line).T
            axes.plot(tokens, 100 * accuracy, "o-", color=colour, label=name, markersize=4)
            axes.fill_between(tokens, 100 * low, 100 * high, color=colour, alpha=0.12, linewidth=0)
        axes.set(
            xlabel="output tokens a question, probes included",
            ylabel="right answers, %",
            title="How much of a chain is needed for its answer?",
            xlim=(0, None),
            ylim=(0, None),
        )
        axes.legend(fontsize=8, loc="upper left")
        figure.savefig(path)
        plt.close(figure)
