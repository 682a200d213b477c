"""The picture of the stop-rule study: loss against tokens, and tokens against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def plot_frontier(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    waves: Sequence[Mapping[str, Any]],
    path: Path,
) -> None:
    """Left: each family's settings. Right: each rule at waves of 1, 2, 4 and 8."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    for family, points in curves.items():
        ordered = sorted(points)
        bold = family == "default"
        left.plot(*zip(*ordered, strict=True), marker="o", ms=4 if bold else 2.5,
                  lw=2.5 if bold else 1, label=family, zorder=3 if bold else 2)  # fmt: skip
    left.axhline(0.0, color="grey", lw=0.8)
    left.set(xscale="log", ylim=(-0.1, 3), xlabel="tokens against the full budget (geometric mean)",
             ylabel="loss of accuracy, points (mean over sets, gains as 0)")  # fmt: skip
    left.legend(fontsize=8)
    for rule in dict.fromkeys(row["rule"] for row in waves):
        rows = [row for row in waves if row["rule"] == rule]
        right.plot([row["latency"] for row in rows], [row["tokens"] for row in rows],
                   marker="o", label=rule)  # fmt: skip
        for row in rows:
            right.annotate(str(row["wave"]), (row["latency"], row["tokens"]), fontsize=7)
    right.set(xscale="log", yscale="log", ylabel="tokens against the full budget",
              xlabel="latency against the full budget, one sample at a time")  # fmt: skip
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
