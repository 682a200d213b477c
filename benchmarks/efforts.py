"""What the levels of `reasoning_effort` are worth: accuracy and tokens of each, by replay.

    python -m benchmarks.efforts SAMPLES.jsonl [--orders 50] [--evidence FILE] [--out FILE]

The recorded samples need right answers, and as many samples a query as the highest level may take (a
level with a larger budget is left out, and named). `none` is a plain request: one sample. All levels see
the same random orders of the same samples. Told: accuracy, tokens and latency (tokens in a row) a query,
what a level adds to the one before it, and what each further point costs, with 95% bootstrap intervals
over queries. Levels that reason otherwise than by self-consistency cannot be replayed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from certaindex.evidence import Evidence
from certaindex.stopping import parse_rule
from dynasor.config import load_config
from dynasor.errors import DataError
from dynasor.intervals import bootstrap
from dynasor.recorded_query import RecordedQuery
from dynasor.replay import collect_queries, replay
from dynasor.replay_results import RuleResult
from dynasor.server_config import Effort, EffortName
from dynasor.traces import read_traces
from dynasor.vote_weights import read_evidence


class Row(NamedTuple):
    """A level and what it came to."""

    level: str
    samples: int
    rule: str
    wave: int
    result: RuleResult


def rows_of(
    queries: Sequence[RecordedQuery],
    efforts: Mapping[EffortName, Effort],
    orders: int,
    evidence: Evidence | None,
) -> list[Row]:
    """Every level that can be replayed, in the order of the configuration."""
    config = load_config(environment={})
    recorded = min(len(query.groups) for query in queries)
    rows = []
    for level, effort in efforts.items():
        samples = 1 if effort.algorithm == "none" else effort.samples or config.algorithm.samples
        if effort.algorithm not in ("none", "self-consistency") or samples > recorded:
            print(f"{level} is left out: {effort.algorithm}, {samples} samples")
            continue
        rule = "never" if effort.algorithm == "none" else effort.rule or config.allocator.rule
        wave = min(effort.wave or config.allocator.wave, samples)
        result = replay(
            queries,
            {rule: parse_rule(rule)},
            orders=orders,
            wave=wave,
            max_samples=samples,
            evidence=evidence,
        )
        if not result.graded:
            raise DataError("the right answers are not known; record a suite that has them")
        rows.append(Row(level, samples, rule, wave, result.rules[0]))
    return rows


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each level, and its change from the level before it (the first: from itself)."""
    table = []
    for before, row in zip([rows[0], *rows], rows, strict=False):
        now, then = row.result.by_query, before.result.by_query
        change = 100 * (now[:, 0] - then[:, 0])
        table.append(
            {
                "level": row.level,
                "samples": row.samples,
                "rule": row.rule,
                "wave": row.wave,
                "accuracy": row.result.accuracy,
                "accuracy_interval": row.result.accuracy_interval,
                "gain": float(change.mean()),
                "gain_interval": bootstrap(change),
                "tokens": row.result.tokens,
                "of_plain": row.result.tokens / rows[0].result.tokens,
                "of_plain_interval": bootstrap(now[:, 1], rows[0].result.by_query[:, 1]),
                "finished_samples": row.result.samples,
                "latency_of_plain": row.result.latency / rows[0].result.latency,
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument("--evidence", type=Path)
    parser.add_argument("--config", type=Path, help="whose [server.effort] is taken")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    queries = collect_queries(
        sample
        for sample in read_traces(options.samples, skip_torn_end=True)
        if sample.finish_reason not in ("aborted", "error")
    )
    evidence = None if options.evidence is None else read_evidence(options.evidence)
    efforts = load_config(options.config, environment={}).server.effort
    table = figures(rows_of(queries, efforts, options.orders, evidence))
    print(f"{len(queries)} queries, {options.orders} orders\n")
    print("| effort | budget, wave | accuracy, % | more than the level before, points | tokens | "
          "of none | samples | latency of none |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for row in table:
        low, high = (100 * edge for edge in row["accuracy_interval"])
        gain_low, gain_high = row["gain_interval"]
        least, most = row["of_plain_interval"]
        print(
            f"| {row['level']} | {row['samples']}, {row['wave']} "
            f"| {100 * row['accuracy']:.1f} [{low:.1f}, {high:.1f}] "
            f"| {row['gain']:+.2f} [{gain_low:+.2f}, {gain_high:+.2f}] "
            f"| {row['tokens']:,.0f} | {row['of_plain']:.2f} [{least:.2f}, {most:.2f}] "
            f"| {row['finished_samples']:.1f} | {row['latency_of_plain']:.2f} |"
        )
    if options.out:
        text = {"queries": len(queries), "orders": options.orders, "levels": table}
        options.out.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
