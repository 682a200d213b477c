"""After how many queries does drift raise the alarm, and how often does the same distribution?

    python -m benchmarks.drift_alarm REFERENCE.jsonl.gz [OTHER.jsonl.gz]... [--rule RULE] [--json FILE]

Half of the questions of the reference, each in one random order of its samples, is the calibration.
Drift: live queries are those of another trace (another model, harder questions), from the first query on
and after CALM queries of the reference's other half. The same distribution: live queries are the other
half, each once; and, for a long watch, calibration and live queries are both drawn with replacement from
all questions and orders of the reference, so that they are exchangeable by construction.

The watch is that over the setting which serves a class while there is no overload. Where the class has
bolder ones, as here, it has half of the class's risk.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from dynasor.intervals import Interval
from dynasor.recorded_query import collect_queries
from dynasor.slo.drift import Alarm, DriftWatch
from dynasor.slo.outcomes import outcomes_of
from dynasor.slo.traits import Traits
from dynasor.traces import read_traces

PERIOD = 10_000
BASE = 0.5
"""Share of a class's risk, see `dynasor.slo.ladder_drift`."""
CALIBRATED = 250
"""Queries of the calibration of a long watch."""

Table = NDArray[np.float64]
"""(questions, orders, traits)"""


@dataclass(frozen=True)
class Alarms:
    """How watches over one kind of live queries went.

    Attributes:
        live: what they saw.
        calm: queries of the reference before the drift.
        watches: how many.
        queries: most live queries of a watch, those before the drift not counted.
        raised: alarms after the drift; before it (or without one) they are false.
        false: alarms before it.
        share: of the watches with a false alarm, with Clopper and Pearson's interval of 95%.
        median, p90: queries of the drift until the alarm; None where too many raised none.
        traits: that raised it.
    """

    live: str
    calm: int
    watches: int
    queries: int
    raised: int
    false: int
    share: tuple[float, Interval]
    median: float | None
    p90: float | None
    traits: dict[str, int]


def table_of(path: Path, rule: str, samples: int, orders: int) -> Table:
    """Traits of each question in some random orders of its samples."""
    queries = collect_queries(read_traces(path))
    tables = []
    for seed in range(orders):
        ends = outcomes_of(
            queries, [rule], samples=samples, wave=1, full_samples=samples, seed=seed
        )
        columns = (ends.certainty, ends.agreement, ends.samples, ends.sample_tokens)
        tables.append(np.stack([column[0] for column in columns], axis=1))
    return np.stack(tables, axis=1)


def blinded(table: Table, traits: list[str], seed: int) -> Table:
    """With noise in the place of some traits."""
    random = np.random.default_rng(seed)
    for trait in traits:
        table[..., Traits._fields.index(trait)] = random.random(table.shape[:2])
    return table


def drawn(table: Table, questions: Iterable[int], random: np.random.Generator) -> Iterator[Traits]:
    """These questions, each in an order of its own."""
    for question in questions:
        yield Traits(*table[question, random.integers(table.shape[1])])


def shuffled_for_ever(table: Table, random: np.random.Generator) -> Iterator[Traits]:
    """All questions in random order, again and again."""
    while True:
        yield from drawn(table, random.permutation(len(table)), random)


def first_alarm(watch: DriftWatch, live: Iterator[Traits], most: int) -> Alarm | None:
    """The alarm within so many queries."""
    for _ in range(most):
        query = next(live, None)
        if query is None:
            return None
        if (alarm := watch.see(query)) is not None:
            return alarm
    return None


def watch_halves(
    reference: Table, drift: Table | None, calm: int, options: argparse.Namespace, name: str
) -> Alarms:
    """Watches calibrated on a half of the reference; then its other half, then the drift."""
    found: list[Alarm | None] = []
    false = 0
    most = options.most if drift is not None else len(reference) - len(reference) // 2
    for seed in range(options.watches):
        random = np.random.default_rng((options.seed, seed))
        order = random.permutation(len(reference))
        half = len(order) // 2
        calibrated = list(drawn(reference, order[:half], random))
        watch = DriftWatch(calibrated, risk=BASE * options.risk, period=PERIOD, seed=seed)
        same = drawn(reference, order[half:], random)
        early = first_alarm(watch, same, calm if drift is not None else most)
        false += early is not None
        if drift is not None and early is None:
            alarm = first_alarm(watch, shuffled_for_ever(drift, random), most)
            found.append(alarm and Alarm(alarm.trait, alarm.queries - calm))
    return summary(name, calm, options.watches, most, found, false)


def watch_long(reference: Table, options: argparse.Namespace) -> Alarms:
    """Long watches over exchangeable queries."""
    false = 0
    for seed in range(options.long_watches):
        random = np.random.default_rng((options.seed, 1, seed))
        picked = random.integers(len(reference), size=CALIBRATED + options.long)
        live = drawn(reference, picked, random)
        calibrated = [next(live) for _ in range(CALIBRATED)]
        watch = DriftWatch(calibrated, risk=BASE * options.risk, period=PERIOD, seed=seed)
        false += first_alarm(watch, live, options.long) is not None
    return summary("the same, long", 0, options.long_watches, options.long, [], false)


def summary(
    live: str, calm: int, watches: int, queries: int, found: list[Alarm | None], false: int
) -> Alarms:
    needed = [np.inf if alarm is None else float(alarm.queries) for alarm in found]
    low, high = binomtest(false, watches).proportion_ci(0.95)

    def quantile(share: float) -> float | None:
        value = float(np.quantile(needed, share, method="higher")) if needed else np.inf
        return value if np.isfinite(value) else None

    return Alarms(
        live=live,
        calm=calm,
        watches=watches,
        queries=queries,
        raised=sum(alarm is not None for alarm in found),
        false=false,
        share=(false / watches, (float(low), float(high))),
        median=quantile(0.5),
        p90=quantile(0.9),
        traits=dict(Counter(alarm.trait for alarm in found if alarm)),
    )


def run(options: argparse.Namespace) -> list[Alarms]:
    def read(path: Path, seed: int) -> Table:
        table = table_of(path, options.rule, options.samples, options.orders)
        return blinded(table, options.blind, seed)

    reference = read(options.reference, 0)
    rows: list[Alarms] = []

    def add(row: Alarms) -> None:
        rows.append(row)
        print(line(row), flush=True)

    if "same" in options.parts:
        add(watch_halves(reference, None, 0, options, "the same, other half"))
    for number, path in enumerate(options.others, 1):
        drift = read(path, number)
        for calm in (0, min(options.calm, len(reference) // 2)):
            add(watch_halves(reference, drift, calm, options, path.name))
    if "long" in options.parts:
        add(watch_long(reference, options))
    return rows


def line(row: Alarms) -> str:
    """A line of a table in Markdown."""
    share, (low, high) = row.share
    alarms = f"{row.false} of {row.watches} ({share:.1%} [{low:.1%}, {high:.1%}])"
    drift = f"{row.raised} | {row.median} | {row.p90} | {row.traits}"
    return f"| {row.live} | {row.calm} | {row.queries} | {alarms} | {drift} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    parser.add_argument("--rule", default="default")
    parser.add_argument("--samples", type=int, default=16, help="full budget")
    parser.add_argument("--orders", type=int, default=10, help="random orders of each question")
    parser.add_argument("--watches", type=int, default=100)
    parser.add_argument("--calm", type=int, default=200, help="queries before a late drift")
    parser.add_argument("--most", type=int, default=2000, help="queries of a drift")
    parser.add_argument("--long", type=int, default=2000, help="queries of a long watch")
    parser.add_argument("--long-watches", type=int, default=50)
    parser.add_argument("--risk", type=float, default=0.01, help="of a class, in a period")
    parser.add_argument(
        "--parts",
        nargs="*",
        default=["same", "long"],
        choices=["same", "long"],
        help="what is measured of the same distribution",
    )
    parser.add_argument(
        "--blind",
        nargs="*",
        default=[],
        choices=Traits._fields,
        help="traits that are replaced by noise, to see what the others find",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = run(options)
    if options.json:
        told = {name: str(value) for name, value in vars(options).items()}
        result = {"options": told, "alarms": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
