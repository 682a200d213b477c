"""Latency of a queue by predicted length: python benchmarks/rank_queue.py [--data FILE] [--trace FILE]

The same requests first come first served, by each score, and by the oracle, which knows their lengths:
a single server at 70, 90 and 120% load, a burst of 2,000, and a batch of 64. Told: mean and 99th
percentile against FCFS, and the share of the oracle's gain, without our guard against starvation and
with it; then also the largest part of the bound on waiting that anybody used up.

--data: prompts with lengths (`dynasor rank build-data`), scored by each --ranker; a test split.
--trace: recorded samples. A request is one sample; it is scored by what its siblings tell, the mean log
tokens of 1, 4, or all other samples of its question, and, where there are prompts (the trace's own, or
--prompts TRACE=SUITE), by a probe of --backbone that learned from all other questions. 95% intervals
over runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from probed_prompts import Prober
from suite_prompts import with_prompts

from dynasor.bench.recorded import collect_questions
from dynasor.ranking.backbone import DEFAULT_BACKBONE
from dynasor.ranking.dataset import read_examples
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.model_folder import load_ranker
from dynasor.ranking.queue_simulation import FCFS, ORACLE, Comparison, Traffic, compare_orders
from dynasor.scheduling.aging import Aging
from dynasor.traces import read_traces

Floats = NDArray[np.float64]

TRAFFIC = {
    "one server, 70%": Traffic(0.7),
    "one server, 90%": Traffic(0.9),
    "one server, 120%": Traffic(1.2),
    "burst of 2,000": Traffic(None),
    "64 slots, 70%": Traffic(0.7, 64, 8000),
    "64 slots, 90%": Traffic(0.9, 64, 8000),
    "64 slots, 120%": Traffic(1.2, 64, 8000),
    "64 slots, burst of 2,000": Traffic(None, 64),
}


def data_scores(path: Path, rankers: list[str]) -> tuple[dict[str, Floats], Floats]:
    """Scores of the prompts by each ranker, and their lengths."""
    examples = read_examples(path)
    prompts = [each.prompt for each in examples]
    scores = {name: load_ranker(name).score(prompts) for name in rankers}
    return scores, np.array([each.tokens for each in examples])


def trace_scores(
    path: Path, seed: int, prompts: Mapping[str, str], prober: Prober
) -> tuple[dict[str, Floats], Floats]:
    """What siblings and prompts tell of each recorded sample, and the lengths.

    Args:
        path: the trace.
        seed: of the order of siblings.
        prompts: path of a trace -> suite with its prompts.
        prober: of the prompts.
    """
    draw = np.random.default_rng(seed)
    recorded = collect_questions(read_traces(path, skip_torn_end=True))
    if suite := prompts.get(str(path)):
        recorded = with_prompts(recorded, suite)
    questions = [each for each in recorded.values() if len(each.query.tokens) >= 6]
    if not questions:
        raise SystemExit(f"{path}: no question has 6 samples or more")
    lengths: list[Floats] = []
    told: dict[str, list[Floats]] = {"1 sibling": [], "4 siblings": [], "all siblings": []}
    for question in questions:
        tokens = np.maximum(draw.permutation(np.array(question.query.tokens, dtype=np.float64)), 1)
        logs = np.log(tokens)
        lengths.append(tokens)
        told["1 sibling"].append(np.roll(logs, 1))
        told["4 siblings"].append(np.mean([np.roll(logs, place) for place in (1, 2, 3, 4)], axis=0))
        told["all siblings"].append((logs.sum() - logs) / (len(logs) - 1))
    texts = [question.prompt for question in questions if question.prompt is not None]
    if len(texts) == len(questions):
        typical = [float(np.exp(np.log(tokens).mean())) for tokens in lengths]
        _, held_out = prober.fit(
            [LengthExample(text, length, text) for text, length in zip(texts, typical, strict=True)]
        )
        told["prompt"] = [
            np.full(len(tokens), score) for tokens, score in zip(lengths, held_out, strict=True)
        ]
    return {name: np.concatenate(each) for name, each in told.items()}, np.concatenate(lengths)


def rows_of(
    name: str, scores: Mapping[str, Floats], tokens: Floats, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    guard = Aging(options.patience * options.pace, options.turns)
    for kind, traffic in TRAFFIC.items():
        for aging in (None, guard):
            found = compare_orders(
                scores, tokens, traffic, aging=aging, repeats=options.repeats, seed=options.seed
            )
            for order in (*scores, ORACLE):
                yield {"set": name, "traffic": kind, "guard": aging is not None, "order": order,
                       **figures(found, order)}  # fmt: skip


def figures(found: Comparison, order: str) -> dict[str, Any]:
    fcfs, own = found.results[FCFS], found.results[order]
    mean, interval = found.speedup(order)
    share, share_interval = found.share_of_gain(order)
    return {
        "fcfs_mean": float(fcfs.mean.mean()),
        "fcfs_p99": float(fcfs.p99.mean()),
        "mean": float(own.mean.mean()),
        "p99": float(own.p99.mean()),
        "mean_speedup": mean,
        "mean_speedup_interval": interval,
        "p99_speedup": float(fcfs.p99.mean() / own.p99.mean()),
        "share_of_gain": share,
        "share_of_gain_interval": share_interval,
        "longest_wait": float(own.longest_wait.max()),
        "of_bound": float(own.of_bound.max()),
    }


def line(row: Mapping[str, Any]) -> str:
    low, high = row["mean_speedup_interval"]
    share_low, share_high = row["share_of_gain_interval"]
    guard = f"{row['of_bound']:.2f}" if row["guard"] else "no guard"
    return (
        f"| {row['set']} | {row['traffic']} | {row['order']} | {row['mean_speedup']:.2f} "
        f"({low:.2f} to {high:.2f}) | {row['p99_speedup']:.2f} | {row['share_of_gain']:.2f} "
        f"({share_low:.2f} to {share_high:.2f}) | {guard} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="prompts with lengths")
    parser.add_argument("--ranker", action="append", default=[], help="name or folder; repeatable")
    parser.add_argument("--trace", type=Path, action="append", default=[], help="recorded samples")
    parser.add_argument("--prompts", action="append", default=[], metavar="TRACE=SUITE",
                        help="prompts by place in a suite, for queries named NAME/PLACE")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=20, help="runs")
    parser.add_argument("--patience", type=float, default=60.0, help="of the guard, seconds")
    parser.add_argument("--turns", type=int, default=4, help="of the guard")
    parser.add_argument("--pace", type=float, default=50.0, help="tokens a second of a request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="that reads prompts")
    parser.add_argument("--pooling", default="mean", help="mean, or last (for decoders)")
    options = parser.parse_args()
    prober = Prober(options)
    if options.data is None and not options.trace:
        parser.error("give --data or --trace")
    sets = {}
    if options.data is not None:
        sets[options.data.name] = data_scores(options.data, options.ranker)
    for path in options.trace:
        sets[path.name.removesuffix(".gz").removesuffix(".jsonl")] = trace_scores(
            path, options.seed, dict(each.split("=", 1) for each in options.prompts), prober
        )
    if not options.json:
        print("| lengths | traffic | order by | mean, times FCFS | p99, times FCFS | share of the "
              "oracle's gain | most of the bound used |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, (scores, tokens) in sets.items():
        for row in rows_of(name, scores, tokens, options):
            print(json.dumps(row) if options.json else line(row), flush=True)


if __name__ == "__main__":
    main()
