"""Does a promised loss hold? Calibrate on half of a trace's questions, test on the other half.

    python benchmarks/promise_coverage.py TRACE EPSILON [TRACE EPSILON]... [--json]

Each split draws a half of the questions and one random order of samples a question to calibrate on.
The settings are one family of stop rules from safe to bold; the boldest that is certified to change at
most EPSILON of the answers, with confidence 1 - delta, is tested on the other half, where each question
is run in all orders but counts once. Beside it: the rule as it comes (no calibration), the boldest
setting whose loss on the calibration half is at most EPSILON (calibration without a guarantee), and the
cheapest that keeps EPSILON on the test half (hindsight, which nobody has).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from certaindex.calibration import fixed_sequence, p_values, queries_needed, upper_bound
from dynasor.intervals import Interval
from dynasor.recorded_query import collect_queries
from dynasor.slo.outcomes import outcomes_of
from dynasor.traces import read_traces

CAUTIONS = (6, 5, 4.5, 4, 3.5, 3, 2.7, 2.4, 2.1, 1.8, 1.5, 1.2, 1, 0.8, 0.6, 0.4, 0.2, 0,
            -0.2, -0.4, -0.7, -1, -1.5, -2)  # fmt: skip
RULES = tuple(f"default:{caution:g}" for caution in CAUTIONS)
UNCALIBRATED = RULES.index("default:0")

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """One way to choose a setting, over all splits.

    Attributes:
        broken: share of splits whose loss on the test half exceeds epsilon.
        broken_interval: of it, Clopper and Pearson's of 95%.
        broken_of_all: the same against the loss over all questions of the trace.
        tokens: of the full budget's on the test half, mean over splits.
        loss: on the test half, mean over splits.
        none: share of splits without any certified setting; these spend the full budget.
    """

    name: str
    broken: float
    broken_interval: Interval
    broken_of_all: float
    tokens: float
    loss: float
    none: float


@dataclass(frozen=True)
class Coverage:
    """The figures of one trace."""

    trace: str
    questions: int
    epsilon: float
    delta: float
    full_samples: int
    splits: int
    orders: int
    bound_if_none_lost: float
    questions_needed: int
    methods: tuple[Method, ...]


def tables(path: Path, full_samples: int, orders: int) -> tuple[Table, Table]:
    """(settings + full budget, questions, orders): whether the answer differs; tokens."""
    queries = collect_queries(read_traces(path))
    runs = [
        outcomes_of(
            queries,
            [*RULES, "never"],
            samples=full_samples,
            wave=1,
            full_samples=full_samples,
            seed=seed,
        )
        for seed in range(orders)
    ]
    return (
        np.stack([run.differed for run in runs], axis=-1).astype(np.float64),
        np.stack([run.tokens for run in runs], axis=-1),
    )


def coverage(
    path: Path, epsilon: float, delta: float, full_samples: int, splits: int, orders: int
) -> Coverage:
    """Split and count."""
    differed, tokens = tables(path, full_samples, orders)
    questions = differed.shape[1]
    draw = np.random.default_rng(0)
    chosen: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
    for _ in range(splits):
        places = draw.permutation(questions)
        ours, test = places[: questions // 2], places[questions // 2 :]
        seen = differed[:, ours, draw.integers(orders, size=len(ours))]
        for name, setting in _choices(seen, differed[:, test], tokens[:, test], epsilon, delta):
            chosen.setdefault(name, []).append((setting, test))
    half = questions // 2
    return Coverage(
        trace=path.name,
        questions=questions,
        epsilon=epsilon,
        delta=delta,
        full_samples=full_samples,
        splits=splits,
        orders=orders,
        bound_if_none_lost=upper_bound(np.zeros(half), delta),
        questions_needed=queries_needed(epsilon, delta),
        methods=tuple(
            _method(name, picks, differed, tokens, epsilon) for name, picks in chosen.items()
        ),
    )


def _choices(
    seen: Table, test: Table, tokens: Table, epsilon: float, delta: float
) -> list[tuple[str, int]]:
    """Name of a method -> index of its setting; the last index is the full budget."""
    certified = fixed_sequence(p_values(seen[:-1], epsilon), delta)
    held = np.logical_and.accumulate(seen[:-1].mean(axis=1) <= epsilon)
    kept = np.flatnonzero(test.mean(axis=(1, 2)) <= epsilon)
    return [
        ("calibrated", int(certified.sum()) - 1),
        ("calibrated without a guarantee", int(held.sum()) - 1),
        ("uncalibrated", UNCALIBRATED),
        ("hindsight", int(kept[tokens[kept].mean(axis=(1, 2)).argmin()])),
    ]


def _method(
    name: str,
    picks: list[tuple[int, NDArray[np.int64]]],
    differed: Table,
    tokens: Table,
    epsilon: float,
) -> Method:
    losses = np.array([differed[setting, test].mean() for setting, test in picks])
    shares = [tokens[setting, test].mean() / tokens[-1, test].mean() for setting, test in picks]
    broken = int((losses > epsilon).sum())
    interval = stats.binomtest(broken, len(picks)).proportion_ci(method="exact")
    return Method(
        name=name,
        broken=broken / len(picks),
        broken_interval=(float(interval.low), float(interval.high)),
        broken_of_all=float(np.mean([differed[setting].mean() > epsilon for setting, _ in picks])),
        tokens=float(np.mean(shares)),
        loss=float(losses.mean()),
        none=float(np.mean([setting == -1 for setting, _ in picks])),
    )


def show(found: Coverage) -> None:
    print(
        f"\n{found.trace}: {found.questions} questions, full budget {found.full_samples}; at most "
        f"{100 * found.epsilon:g} points at {100 * (1 - found.delta):g}% confidence\n"
        f"  with {found.questions // 2} questions and none lost the bound is "
        f"{100 * found.bound_if_none_lost:.2f} points; the promise needs {found.questions_needed}"
    )
    print("  setting                         broken   interval       (of all)  loss  tokens  none")
    for each in found.methods:
        low, high = each.broken_interval
        print(
            f"  {each.name:31} {100 * each.broken:5.1f}%  [{100 * low:4.1f}, {100 * high:5.1f}]"
            f"   {100 * each.broken_of_all:5.1f}%  {100 * each.loss:5.2f}  {each.tokens:.3f}"
            f"  {100 * each.none:4.1f}%"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="TRACE EPSILON")
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=64, help="full budget")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--orders", type=int, default=10, help="random orders a question")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if len(given.pairs) % 2:
        parser.error("give a promised loss after each trace, such as math500.jsonl.gz 0.02")
    rows: list[dict[str, Any]] = []
    for path, epsilon in zip(given.pairs[::2], given.pairs[1::2], strict=True):
        found = coverage(
            Path(path), float(epsilon), given.delta, given.samples, given.splits, given.orders
        )
        rows.append(asdict(found))
        if not given.json:
            show(found)
    if given.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
