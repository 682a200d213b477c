"""The picture of a training: loss and held-out tau by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

import matplotlib.pyplot as plt

from dynasor.bench.plots import COLOURS, STYLE
from dynasor.ranking.training import Check


def save_learning_curves(checks: Sequence[Check], loss: str, path: Path) -> None:
    """Two panels, one above the other; a star marks the weights that were kept."""
    steps = [check.step for check in checks]
    best = max(checks, key=lambda check: check.tau)
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7, 5))
        above.plot(steps, [check.loss for check in checks], ".-", color=COLOURS[0])
        above.set(ylabel=f"loss ({loss})", title="Learning curves")
        below.plot(steps, [check.tau for check in checks], ".-", color=COLOURS[2])
        below.plot(best.step, best.tau, "*", markersize=14, color=COLOURS[1], label="kept")
        below.set(xlabel="lists learned from", ylabel="Kendall's tau, held-out")
        below.legend(loc="lower right")
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)
