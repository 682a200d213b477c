"""What cutting improbable samples is worth: python benchmarks/early_cut.py TRACE... [--json FILE].

Half of a trace's questions teaches the weights of votes and when a sample is lost, the other half
measures both, and then the other way round (see `halves.py`). The same rule, the same weights, the same
orders, with and without cutting: tokens as a ratio, accuracy as a difference, both paired by question,
with 95% bootstrap intervals. `--below` cuts at a chance that was not learned.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from halves import tuning_half
from numpy.typing import NDArray

from certaindex.stopping import parse_rule
from dynasor.intervals import bootstrap
from dynasor.learn_evidence import learn_evidence
from dynasor.recorded_query import RecordedQuery, collect_queries
from dynasor.replay import replay
from dynasor.traces import read_traces

Means = NDArray[np.float64]
"""(questions, columns): right, tokens, latency, loss, as `RuleResult.by_query`."""


def measure(
    taught: list[RecordedQuery], measured: list[RecordedQuery], options: argparse.Namespace
) -> tuple[float, dict[tuple[str, int], tuple[Means, Means]]]:
    """Chance below which samples are cut; (rule, wave) -> without and with cutting."""
    evidence = learn_evidence(taught).evidence
    if options.below is not None:
        evidence = replace(evidence, cut_below=options.below)
    rules = {text: parse_rule(text) for text in options.rule}
    means = {}
    for wave in options.wave:
        whole, cut = (
            replay(
                measured,
                rules,
                orders=options.orders,
                wave=wave,
                max_samples=options.max_samples,
                evidence=evidence,
                early_cut=early_cut,
            ).rules
            for early_cut in (False, True)
        )
        for one, other in zip(whole, cut, strict=True):
            means[one.rule, wave] = (one.by_query, other.by_query)
    return evidence.cut_below, means


def rows_of(path: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each rule and wave."""
    queries = collect_queries(
        sample for sample in read_traces(path) if sample.finish_reason not in ("aborted", "error")
    )
    first = tuning_half(query.id for query in queries)
    halves = [[query for query in queries if (query.id in first) is side] for side in (True, False)]
    folds = [measure(halves[0], halves[1], options), measure(halves[1], halves[0], options)]
    rows: list[dict[str, object]] = []
    for rule, wave in folds[0][1]:
        whole, cut = (
            np.concatenate([means[rule, wave][side] for _, means in folds]) for side in (0, 1)
        )
        row: dict[str, object] = {
            "set": path.name.split(".jsonl")[0],
            "questions": len(queries),
            "rule": rule,
            "wave": wave,
            "cut_below": [below for below, _ in folds],
            "tokens": [float(whole[:, 1].mean()), float(cut[:, 1].mean())],
        }
        for name, column in (("tokens_ratio", 1), ("latency_ratio", 2)):
            row[name] = float(cut[:, column].mean() / whole[:, column].mean())
            row[f"{name}_interval"] = list(bootstrap(cut[:, column], whole[:, column]))
        gain = 100 * (cut[:, 0] - whole[:, 0])
        row |= {"accuracy": [float(side[:, 0].mean()) for side in (whole, cut)],
                "points": float(gain.mean()), "points_interval": list(bootstrap(gain))}  # fmt: skip
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE")
    parser.add_argument("--rule", action="append", help="stop rule; evidence if not given")
    parser.add_argument(
        "--wave", type=int, action="append", help="samples in flight; 1 if not given"
    )
    parser.add_argument("--orders", type=int, default=20, help="random orders a question")
    parser.add_argument("--max-samples", type=int, default=16, help="full budget")
    parser.add_argument("--below", type=float, help="cut below this chance, whatever was learned")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    options = parser.parse_args()
    options.rule = options.rule or ["evidence"]
    options.wave = options.wave or [1]
    rows = [row for path in options.traces for row in rows_of(path, options)]
    for row in rows:
        tokens, points = row["tokens_ratio_interval"], row["points_interval"]
        assert isinstance(tokens, list)
        assert isinstance(points, list)
        print(
            f"{row['set']} ({row['questions']} questions), {row['rule']}, wave {row['wave']}, cut below "
            f"{row['cut_below']}: tokens x{row['tokens_ratio']:.3f} [{tokens[0]:.3f}, {tokens[1]:.3f}], "
            f"latency x{row['latency_ratio']:.3f}, "
            f"accuracy {row['points']:+.2f} points [{points[0]:+.2f}, {points[1]:+.2f}]"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
