"""Self-consistency, short-m-of-k and DeepConf on recorded samples, in step.

    python benchmarks/replay_programs.py TRACE.jsonl.gz --samples 16 --orders 20

DeepConf is left out where the trace lacks the confidence of each token. Prints accuracy, tokens and
latency (tokens in step) a query, each against self-consistency on the same samples in the same orders,
with 95% bootstrap intervals over queries.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from algorithms.deepconf import Confidence, DeepConf
from algorithms.program import Program, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.short_m_of_k import ShortMOfK
from algorithms.task import Task
from certaindex.equivalence import AnswerGroups
from certaindex.stopping import parse_rule
from dynasor.intervals import bootstrap
from dynasor.replay_programs import play
from dynasor.traces import TraceSample, read_traces


class SameText:
    """Recorded answers are normalised: the same answer is the same text."""

    def same_as_any(self, new: str, known: list[str]) -> int | None:
        return known.index(new) if new in known else None


class System(NamedTuple):
    name: str
    build: Callable[[dict[str, str | None], int], Program]
    rule: str = "never"
    wave: int | None = None


def common(answers: dict[str, str | None]) -> dict[str, object]:
    return {"extract": answers.get, "groups": AnswerGroups(SameText())}


def deepconf(keep: float, warm_up: int, group: int) -> Callable[..., Program]:
    return lambda answers, n: DeepConf(
        Task("q", "", sampling=Sampling(top_logprobs=5), **common(answers)),
        samples=n,
        confidence=Confidence(keep=keep, warm_up=warm_up, group=group, tail=group, report_every=8),
    )


def short(first: int) -> Callable[..., Program]:
    return lambda answers, n: ShortMOfK(
        Task("q", "", sampling=Sampling(), **common(answers)), first=first, samples=n
    )


def self_consistency(answers: dict[str, str | None], n: int) -> Program:
    return SelfConsistency(Task("q", "", sampling=Sampling(), **common(answers)), samples=n)


def systems(n: int, group: int, *, confident: bool) -> list[System]:
    rows = [System("self-consistency", self_consistency)]
    rows += [System("self-consistency, default rule", self_consistency, "default", 1)]
    rows += [System(f"short-{m}-of-{n}", short(m)) for m in sorted({1, n // 4, n // 2, 3 * n // 4})]
    for keep in (0.9, 0.5, 0.1) if confident else ():
        rows.append(System(f"DeepConf offline, keep {keep:g}", deepconf(keep, 0, group)))
        for rule in ("never", f"consensus:0.95,min={n // 4}"):
            name = f"DeepConf online, keep {keep:g}, {rule.partition(':')[0]}"
            rows.append(System(name, deepconf(keep, n // 4, group), rule))
    return rows


def unique_texts(rows: list[TraceSample]) -> list[TraceSample]:
    """Samples whose text is their number, so that a program reads the recorded answer by it."""
    return [
        TraceSample(
            query=row.query,
            sample=row.sample,
            tokens=row.tokens,
            answer=row.answer,
            text=str(number),
            finish_reason=row.finish_reason,
            confidence=row.confidence,
        )
        for number, row in enumerate(rows)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--group", type=int, default=64, help="tokens a group of DeepConf")
    options = parser.parse_args()
    queries: dict[str, list[TraceSample]] = {}
    for sample in read_traces(options.trace):
        queries.setdefault(sample.query, []).append(sample)
    print("| system | accuracy, % | change, points | tokens | of full | latency of full |")
    print("|---|---|---|---|---|---|")
    full: np.ndarray | None = None
    confident = all(row.confidence for rows in queries.values() for row in rows)
    for system in systems(options.samples, options.group, confident=confident):
        rule, figures = parse_rule(system.rule), []
        for name, rows in queries.items():
            gold, rows = rows[0].gold, unique_texts(rows)
            answers = {row.text or "": row.answer for row in rows}
            each = []
            for order in range(options.orders):
                chosen = random.Random(f"{name}/{order}").sample(rows, options.samples)
                program = system.build(answers, options.samples)
                done = play(program, chosen, rule, wave=system.wave or options.samples)
                each.append((done.answer.value == gold, done.tokens, done.time))
            figures.append(np.mean(each, axis=0))
        table = np.array(figures)
        full = table if full is None else full
        print(row_of(system.name, table, full), flush=True)


def row_of(name: str, table: np.ndarray, full: np.ndarray) -> str:
    change = 100 * (table[:, 0] - full[:, 0])
    low, high = bootstrap(change)
    ratio = table[:, 1].sum() / full[:, 1].sum()
    ratio_low, ratio_high = bootstrap(table[:, 1], full[:, 1])
    return (
        f"| {name} | {100 * table[:, 0].mean():.1f} | {change.mean():+.1f} [{low:+.1f}, {high:+.1f}] "
        f"| {table[:, 1].mean():,.0f} | {ratio:.1%} [{ratio_low:.1%}, {ratio_high:.1%}] "
        f"| {table[:, 2].sum() / full[:, 2].sum():.1%} |"
    )


if __name__ == "__main__":
    main()
