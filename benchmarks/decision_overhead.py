"""What a decision costs: python benchmarks/decision_overhead.py [--json].

One finished sample of one of 1,000 live queries of 64 answers each: count the vote and ask the rule.
And the batched certaindex of 10,000 queries of 64 answers in one call on CPU.
"""

from __future__ import annotations

import argparse
import json
from time import perf_counter_ns

import numpy as np
import torch

from certaindex.agreement import certaindex_batched
from certaindex.stopping import parse_rule
from certaindex.votes import Votes

QUERIES, ANSWERS = 1000, 64
RULES = (
    "default",
    "adaptive-consistency",
    "certaindex",
    "bayes-factor",
    "eprocess",
    "leader-change",
)


def decision_times(text: str) -> dict[str, float]:
    """Microseconds of vote and decision; the queries take turns, so caches are as cold as live."""
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(8, 0.5), size=QUERIES)
    drawn = np.array([random.choice(8, size=ANSWERS, p=share) for share in shares])
    rule, votes = parse_rule(text), [Votes(max_samples=ANSWERS) for _ in range(QUERIES)]
    seen: list[dict[int, int]] = [{} for _ in votes]
    times = []
    for column in drawn.T:
        for ballot, ids, answer in zip(votes, seen, column.tolist(), strict=True):
            group = ids.setdefault(answer, len(ids))
            start = perf_counter_ns()
            ballot.add(group, 100)
            rule.decide(ballot)
            times.append(perf_counter_ns() - start)
    median, late = np.percentile(np.array(times) / 1e3, [50, 99])
    return {"rule": text, "median_us": round(float(median), 2), "p99_us": round(float(late), 2)}


def batched_milliseconds() -> float:
    """Median of ten calls."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(0, 8, (10_000, ANSWERS), generator=generator)
    mask = torch.rand(groups.shape, generator=generator) < 0.95
    times = []
    for _ in range(10):
        start = perf_counter_ns()
        certaindex_batched(groups, mask)
        times.append((perf_counter_ns() - start) / 1e6)
    return round(float(np.median(times)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = {
        "decisions": [decision_times(text) for text in RULES],
        "batched_certaindex_10000x64_ms": batched_milliseconds(),
    }
    if options.json:
        print(json.dumps(report))
        return
    for row in report["decisions"]:
        print(f"{row['rule']:24} median {row['median_us']:8.2f} us   p99 {row['p99_us']:8.2f} us")
    print(f"batched certaindex, 10,000 x 64: {report['batched_certaindex_10000x64_ms']} ms")


if __name__ == "__main__":
    main()
