"""What a system of the offline benchmark did: a line for each query, and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynasor.intervals import Interval, bootstrap
from dynasor.outcome import Outcome
from dynasor.suites import Query

Row = dict[str, Any]
"""The outcome of one query, as a line of outcomes.jsonl; see `row_of`."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a system did on a suite; means a query, 95% bootstrap intervals over queries.

    Attributes:
        name: of the system.
        queries: number of queries with an outcome.
        accuracy: share of right answers, None without gold answers.
        accuracy_interval: of that.
        tokens: output tokens a query, those of cut samples included.
        samples: finished samples a query.
        tokens_ratio: tokens against the first system's, None for the first.
        tokens_ratio_interval: of that, paired by query.
        accuracy_change: accuracy less the first system's, points, None for the first.
        accuracy_change_interval: of that, paired by query.
        agreement: share of queries with the first system's answer.
        reasons: stop reason -> queries.
        failed: requests that the engine failed.
        cached_share: prompt tokens whose KV was already there, of all prompt tokens.
        seconds: of the wall clock, None where the run was gone on with.
    """

    name: str
    queries: int
    accuracy: float | None
    accuracy_interval: Interval | None
    tokens: float
    samples: float
    tokens_ratio: float | None
    tokens_ratio_interval: Interval | None
    accuracy_change: float | None
    accuracy_change_interval: Interval | None
    agreement: float | None
    reasons: Mapping[str, int]
    failed: int
    cached_share: float
    seconds: float | None


def row_of(outcome: Outcome, query: Query, correct: bool | None) -> Row:
    """One line of outcomes.jsonl."""
    return {
        "query": outcome.query,
        "answer": outcome.answer.value,
        "gold": query.gold,
        "correct": correct,
        "reason": outcome.reason,
        "samples": outcome.samples,
        "tokens": outcome.bill.output,
        "cut_tokens": outcome.bill.cut,
        "prompt_tokens": outcome.bill.prompt,
        "cached_tokens": outcome.bill.cached,
        "certainty": round(outcome.certainty.value, 4),
        "votes": [[c.answer, c.votes] for c in outcome.answer.candidates],
        "failed": outcome.failed,
        "seconds": round(outcome.seconds, 3),
        "errors": list(outcome.errors),
    }


def summarise(
    name: str, rows: Sequence[Row], first: Sequence[Row] | None, seconds: float | None
) -> Summary:
    """Sum a system up, against the first system where there is one."""
    tokens = np.array([row["tokens"] for row in rows], dtype=float)
    graded = [row["correct"] for row in rows if row["correct"] is not None]
    right = np.array(graded, dtype=float) if len(graded) == len(rows) else None
    prompt = sum(row["prompt_tokens"] for row in rows)
    reasons: dict[str, int] = {}
    for row in rows:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    ratio = ratio_interval = change = change_interval = agreement = None
    if first is not None:
        full = np.array([row["tokens"] for row in first], dtype=float)
        if full.sum() > 0:
            ratio = float(tokens.sum() / full.sum())
            ratio_interval = bootstrap(tokens, full)
        if right is not None:
            change_each = 100 * (right - np.array([row["correct"] for row in first], dtype=float))
            change, change_interval = float(change_each.mean()), bootstrap(change_each)
        same = [a["answer"] == b["answer"] for a, b in zip(rows, first, strict=True)]
        agreement = float(np.mean(same))
    return Summary(
        name=name,
        queries=len(rows),
        accuracy=None if right is None else float(right.mean()),
        accuracy_interval=None if right is None else bootstrap(right),
        tokens=float(tokens.mean()),
        samples=float(np.mean([row["samples"] for row in rows])),
        tokens_ratio=ratio,
        tokens_ratio_interval=ratio_interval,
        accuracy_change=change,
        accuracy_change_interval=change_interval,
        agreement=agreement,
        reasons=reasons,
        failed=sum(row["failed"] for row in rows),
        cached_share=sum(row["cached_tokens"] for row in rows) / prompt if prompt else 0.0,
        seconds=seconds,
    )
