"""Do several starts of the sequence of tests certify cheaper settings than one?

    python -m benchmarks.sequence_starts TRACE EPSILON [TRACE EPSILON]... [--json FILE]

`dynasor tune` tests settings in an order that the searched queries fix, each at the full level delta, up
to the first that fails: what stands behind it is not certified. With several starts delta is split among
them; a test at a start gets its part besides what those before it have passed on, and a test that fails
passes nothing on (Wiens, "A fixed sequence Bonferroni procedure for testing multiple endpoints", 2003).
So a failure hides no more than what stands before the next start, and the first tests are stricter.

As in `dynasor tune`: 30% of the questions are searched on, 50% calibrated, all families of rules at some
waves, of each wave those that no rule beats on the searched part. Starts stand in equal steps of the
order, or at the first setting of each wave. Reported over random splits: tokens of the cheapest
certified setting, over those of the full budget, and over those with one start (paired, interval by
bootstrap over splits); the same of the cheapest at the largest wave; and how often any certified setting
loses more than EPSILON of all questions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from certaindex.calibration import p_values
from dynasor.intervals import Interval, bootstrap
from dynasor.recorded_query import collect_queries
from dynasor.slo.outcomes import outcomes_of
from dynasor.slo.space import FAMILIES, FULL, space_of
from dynasor.slo.tables import split_queries
from dynasor.traces import read_traces

STARTS = (1, 2, 3, 5)
BY_WAVE = "a wave each"

Table = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Figures:
    """One way to place the starts, over all splits.

    Attributes:
        starts: how many, or how.
        tokens: of the cheapest certified setting over those of the full budget, mean.
        against_one: over those with one start, mean of the ratios, and interval of 95%.
        large_wave: the same of the cheapest at the largest wave.
        certified: settings, mean.
        broken: share of splits in which a certified setting breaks the promise; Clopper and Pearson's
            interval of 95%.
    """

    starts: str
    tokens: float
    against_one: tuple[float, Interval]
    large_wave: tuple[float, Interval]
    certified: float
    broken: tuple[float, Interval]


@dataclass(frozen=True)
class Recorded:
    """All settings on one trace: rules by waves; tables are (settings, questions, orders).

    Attributes:
        differed: whether the answer is not the full budget's.
        tokens: spent.
        waves: (settings,) samples in flight.
        full: (settings,) whether it is the full budget.
    """

    differed: Table
    tokens: Table
    waves: NDArray[np.int64]
    full: Mask


def recorded(path: Path, samples: int, waves: Sequence[int], orders: int) -> Recorded:
    """Replay every rule at every wave."""
    queries = collect_queries(read_traces(path))
    rules = space_of(
        list(FAMILIES), full_samples=samples, most_places=1, can_rank=False, replicas=(1, 1)
    ).all_rules()
    differed, tokens = [], []
    for seed in range(orders):
        runs = [
            outcomes_of(queries, rules, samples=samples, wave=wave, full_samples=samples, seed=seed)
            for wave in waves
        ]
        differed.append(np.concatenate([run.differed for run in runs]))
        tokens.append(np.concatenate([run.tokens for run in runs]))
    return Recorded(
        np.stack(differed, axis=-1).astype(np.float64),
        np.stack(tokens, axis=-1),
        np.repeat(waves, len(rules)),
        np.array([rule == FULL for rule in rules] * len(waves)),
    )


def order_of(losses: Table, tokens: Table, trace: Recorded, epsilon: float) -> NDArray[np.int64]:
    """Settings that are tested, in order, by means on the searched questions."""
    picked: list[int] = []
    for wave in np.unique(trace.waves):
        mine = np.flatnonzero((trace.waves == wave) & ~trace.full)
        least = np.inf
        for setting in mine[np.lexsort((tokens[mine], losses[mine]))]:
            if losses[setting] <= epsilon and tokens[setting] < least:
                least = tokens[setting]
                picked.append(int(setting))
    order = np.lexsort((-tokens[picked], losses[picked]))
    return np.array(picked, dtype=np.int64)[order]


def certified(values: Table, delta: float, starts: Collection[int]) -> Mask:
    """Tests in their order, of which each at a start brings an equal part of delta."""
    level, passed = 0.0, np.zeros(len(values), dtype=bool)
    for place, value in enumerate(values.tolist()):
        level += delta / len(starts) * (place in starts)
        passed[place] = value <= level
        level *= passed[place]
    return passed


def starts_of(order: NDArray[np.int64], trace: Recorded) -> dict[str, set[int]]:
    """Name -> places of the starts in the order."""
    found = {
        str(count): {round(part * len(order) / count) for part in range(count)} for count in STARTS
    }
    waves = trace.waves[order].tolist()
    found[BY_WAVE] = {waves.index(wave) for wave in set(waves)}
    return found


def measure(
    trace: Recorded, epsilon: float, delta: float, splits: int
) -> tuple[list[Figures], float]:
    """Figures of each way to place the starts, and the settings that are tested, mean."""
    _, questions, orders = trace.differed.shape
    true_loss = trace.differed.mean(axis=(1, 2))
    cost = trace.tokens.mean(axis=(1, 2))
    large = trace.waves == trace.waves.max()
    every = np.arange(questions)
    rows: dict[str, list[tuple[float, float, int, bool]]] = {}
    tested = []
    for seed in range(splits):
        split = split_queries(questions, seed)
        drawn = np.random.default_rng(seed).integers(orders, size=questions)
        lost, spent = trace.differed[:, every, drawn], trace.tokens[:, every, drawn]
        order = order_of(
            lost[:, split.search].mean(axis=1), spent[:, split.search].mean(axis=1), trace, epsilon
        )
        tested.append(len(order))
        values = p_values(lost[order][:, split.calibrate], epsilon)
        seen = spent[:, split.calibrate].mean(axis=1)
        for name, starts in starts_of(order, trace).items():
            kept = order[certified(values, delta, starts)]
            rows.setdefault(name, []).append(
                (
                    _cheapest(kept, trace.full, seen, cost),
                    _cheapest(kept[large[kept]], trace.full & large, seen, cost),
                    len(kept),
                    bool((true_loss[kept] > epsilon).any()),
                )
            )
    one = np.array(rows["1"], dtype=np.float64)
    full = cost[trace.full].min()
    return [_figures(name, np.array(each, float), one, full) for name, each in rows.items()], float(
        np.mean(tested)
    )


def _cheapest(kept: NDArray[np.int64], full: Mask, seen: Table, cost: Table) -> float:
    """Tokens over all questions of what looks cheapest on the calibrated ones; or the full budget."""
    among = np.concatenate([kept, np.flatnonzero(full)])
    return float(cost[among[seen[among].argmin()]])


def _figures(name: str, rows: Table, one: Table, full: float) -> Figures:
    def ratio(column: int) -> tuple[float, Interval]:
        ratios = rows[:, column] / one[:, column]
        return float(ratios.mean()), bootstrap(ratios)

    broken = int(rows[:, 3].sum())
    interval = stats.binomtest(broken, len(rows)).proportion_ci(method="exact")
    return Figures(
        starts=name,
        tokens=float(rows[:, 0].mean() / full),
        against_one=ratio(0),
        large_wave=ratio(1),
        certified=float(rows[:, 2].mean()),
        broken=(broken / len(rows), (float(interval.low), float(interval.high))),
    )


def line(trace: str, found: Figures) -> str:
    """A row of a table in Markdown."""

    def show(figure: tuple[float, Interval], digits: str = ".3f") -> str:
        value, (low, high) = figure
        return f"{value:{digits}} [{low:{digits}}, {high:{digits}}]"

    return (
        f"| {trace} | {found.starts} | {found.tokens:.3f} | {show(found.against_one)} | "
        f"{show(found.large_wave)} | {found.certified:.1f} | {show(found.broken, '.1%')} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="TRACE EPSILON")
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=64, help="full budget")
    parser.add_argument("--waves", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--orders", type=int, default=3, help="random orders a question")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if len(given.pairs) % 2:
        parser.error("give a promised loss after each trace, such as math500.jsonl.gz 0.02")
    rows = []
    print(
        "| trace | starts | tokens of full | against one | at the largest wave | certified | broken |"
    )
    print("|---|---|---|---|---|---|---|")
    for path, epsilon in zip(given.pairs[::2], given.pairs[1::2], strict=True):
        trace = recorded(Path(path), given.samples, given.waves, given.orders)
        found, tested = measure(trace, float(epsilon), given.delta, given.splits)
        name = Path(path).name.removesuffix(".jsonl.gz")
        for each in found:
            print(line(f"{name}, {tested:.0f} tested", each), flush=True)
        rows.append({"trace": name, "epsilon": float(epsilon), "tested": tested,
                     "starts": [asdict(each) for each in found]})  # fmt: skip
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
