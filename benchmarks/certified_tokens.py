"""How cheap are the settings that `dynasor tune` certifies, by the sequences in which it tests them?

    python -m benchmarks.certified_tokens TRACE EPSILON [TRACE EPSILON]... [--json FILE]

Each split is one of `dynasor tune`: 30% of the questions searched on, 50% calibrated, each in one random
order of its samples. The search is a random one here, of as many settings, and keeps those that no other
one beats in tokens, loss, and tokens over wave (in the place of latency). Then the settings are tested
in one sequence, from the least loss on the searched questions (what `dynasor tune` did first), or with
the ladder beside it (`dynasor.slo.guarantee`). Reported over the same splits: tokens over all questions
of the certified setting that is the cheapest on the calibrated ones, over those of the full budget; the
ratio to one sequence, with an interval of 95% by bootstrap over splits; the same of settings at the
largest wave; and in how many splits any certified setting loses more than EPSILON over all questions,
with Clopper and Pearson's interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from certaindex.calibration import fixed_sequence, p_values
from dynasor.intervals import Interval, bootstrap
from dynasor.recorded_query import collect_queries
from dynasor.slo.guarantee import certify
from dynasor.slo.outcomes import Setting
from dynasor.slo.promise import QueryClass
from dynasor.slo.space import FAMILIES, FULL, Space, space_of
from dynasor.slo.tables import OutcomeTables, Split, split_queries
from dynasor.traces import read_traces

WAVES = (1, 4, 16)
ONE, LADDER = "one sequence", "with the ladder"

Row = tuple[float, float, int, bool]
"""Tokens of the cheapest, of that at the largest wave, how many are certified, whether one breaks."""


@dataclass(frozen=True)
class Figures:
    """Of one way to test; see above."""

    way: str
    tokens: float
    ratio: tuple[float, Interval]
    large_wave: tuple[float, Interval]
    certified: float
    broken: tuple[float, Interval]


class Trace:
    """A recorded trace under all settings, in some random orders of the samples."""

    def __init__(self, path: Path, samples: int, orders: int) -> None:
        queries = collect_queries(read_traces(path))
        self.space: Space = space_of(
            list(FAMILIES), full_samples=samples, most_places=1, can_rank=False, replicas=(1, 1)
        )._replace(waves=WAVES)
        self.settings = [
            Setting(rule, most, wave)
            for most in self.space.samples
            for wave in WAVES
            for rule in self.space.all_rules()
        ]
        self.tables = [
            OutcomeTables(queries, self.space.all_rules(), full_samples=samples, seed=seed)
            for seed in range(orders)
        ]
        every = np.arange(len(queries))
        ends = [tables.of(self.settings, every) for tables in self.tables]
        self.queries = len(queries)
        self.loss = dict(
            zip(self.settings, sum(e.differed.mean(axis=1) for e in ends) / orders, strict=True)
        )
        self.cost = dict(
            zip(self.settings, sum(e.tokens.mean(axis=1) for e in ends) / orders, strict=True)
        )
        self.full = Setting(FULL, samples, WAVES[-1])


def searched(
    trace: Trace, tables: OutcomeTables, split: Split, tried: int, seed: int
) -> list[Setting]:
    """What a random search would leave to be tested, with the full budget and what replay adds."""
    picks = np.random.default_rng(seed).choice(len(trace.settings), size=tried, replace=False)
    found = [trace.full, *(trace.settings[pick] for pick in picks)]
    ends = tables.of(found, split.search)
    tokens = ends.tokens.mean(axis=1)
    figures = np.stack(
        [tokens, ends.differed.mean(axis=1), tokens / [s.wave for s in found]], axis=1
    )
    best = [
        setting
        for setting, mine in zip(found, figures, strict=True)
        if not ((figures <= mine).all(axis=1) & (figures < mine).any(axis=1)).any()
    ]
    return [trace.full, *best]


def one_sequence(
    tables: OutcomeTables, split: Split, settings: Iterable[Setting], promise: QueryClass
) -> list[Setting]:
    """Certified in one order, by loss and tokens on the searched questions; the full budget too."""
    assert promise.epsilon is not None
    full = [each for each in dict.fromkeys(settings) if tables.is_full(each)]
    others = [each for each in dict.fromkeys(settings) if not tables.is_full(each)]
    known = tables.of(others, split.search)
    order = np.lexsort((-known.tokens.mean(axis=1), known.differed.mean(axis=1)))
    others = [others[place] for place in order]
    losses = tables.of(others, split.calibrate).bounded_losses("answer")
    passed = fixed_sequence(p_values(losses, promise.epsilon), promise.risk)
    return [*full, *(each for each, kept in zip(others, passed, strict=True) if kept)]


def measure(trace: Trace, epsilon: float, splits: int, tried: int) -> list[Figures]:
    """Both ways on the same splits."""
    promise = QueryClass(epsilon=epsilon)
    rows: dict[str, list[Row]] = {ONE: [], LADDER: []}
    for seed in range(splits):
        tables = trace.tables[seed % len(trace.tables)]
        split = split_queries(trace.queries, seed)
        settings = searched(trace, tables, split, tried, seed)
        settings += tables.thrifty(settings, split.search, promise)
        ways = {
            ONE: one_sequence(tables, split, settings, promise),
            LADDER: [each.setting for each in certify(tables, split, settings, promise).certified],
        }
        for way, kept in ways.items():
            rows[way].append(_row(trace, tables, split, kept, epsilon))
    one = np.array(rows[ONE], dtype=np.float64)
    return [_figures(way, np.array(each, float), one) for way, each in rows.items()]


def _row(
    trace: Trace, tables: OutcomeTables, split: Split, kept: list[Setting], epsilon: float
) -> Row:
    def cheapest(among: list[Setting]) -> float:
        seen = tables.of(among, split.calibrate).tokens.mean(axis=1)
        return trace.cost[among[int(seen.argmin())]] / trace.cost[trace.full]

    large = [each for each in kept if each.wave == WAVES[-1]]
    broken = any(trace.loss[each] > epsilon for each in kept)
    return cheapest(kept), cheapest([trace.full, *large]), len(kept), broken


def _figures(way: str, rows: NDArray[np.float64], one: NDArray[np.float64]) -> Figures:
    def ratio(column: int) -> tuple[float, Interval]:
        mean = float(rows[:, column].mean() / one[:, column].mean())
        return mean, bootstrap(rows[:, column], one[:, column])

    broken = int(rows[:, 3].sum())
    interval = stats.binomtest(broken, len(rows)).proportion_ci(method="exact")
    return Figures(
        way=way,
        tokens=float(rows[:, 0].mean()),
        ratio=ratio(0),
        large_wave=ratio(1),
        certified=float(rows[:, 2].mean()),
        broken=(broken / len(rows), (float(interval.low), float(interval.high))),
    )


def line(trace: str, found: Figures) -> str:
    """A row of a table in Markdown."""

    def show(figure: tuple[float, Interval], digits: str = ".2f") -> str:
        value, (low, high) = figure
        return f"{value:{digits}} [{low:{digits}}, {high:{digits}}]"

    return (
        f"| {trace} | {found.way} | {found.tokens:.3f} | {show(found.ratio)} | "
        f"{show(found.large_wave)} | {found.certified:.1f} | {show(found.broken, '.1%')} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="TRACE EPSILON")
    parser.add_argument("--samples", type=int, default=64, help="full budget")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--tried", type=int, default=80, help="settings that the search tries")
    parser.add_argument(
        "--orders", type=int, default=2, help="random orders of a question's samples"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if len(given.pairs) % 2:
        parser.error("give a promised loss after each trace, such as math500.jsonl.gz 0.02")
    print("| trace | tested | tokens of full | ratio | at wave 16 | certified | broken |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for path, epsilon in zip(given.pairs[::2], given.pairs[1::2], strict=True):
        trace = Trace(Path(path), given.samples, given.orders)
        name = Path(path).name.removesuffix(".gz").removesuffix(".jsonl")
        for found in measure(trace, float(epsilon), given.splits, given.tried):
            print(line(name, found), flush=True)
            rows.append({"trace": name, "epsilon": float(epsilon), **asdict(found)})
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
