"""Replay: any stop rule on recorded samples, in virtual time, the same result for the same seed.

For each query, random orders of its recorded samples; `wave` of them in flight, each decoding one
token a tick. When a sample ends it votes and the rule decides; when the query stops, the samples in
flight are cut, and the tokens that they have spent count. Latency is the time at which the query
stops, in tokens: the longest chain of samples that waited for each other. Where samples are cut because
they have become improbable (`certaindex.early_cut`), what they had by then counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from certaindex.early_cut import EarlyCut
from certaindex.evidence import Evidence
from certaindex.stopping import StopRule
from dynasor.errors import DataError
from dynasor.recorded_query import (
    ExactGroups,
    Grouping,
    RecordedQuery,
    collect_queries,
    is_right,
)
from dynasor.replay_results import ReplayResult, Run, summarise
from dynasor.replay_run import run_of, run_query, run_rules

__all__ = [
    "ExactGroups",
    "Grouping",
    "RecordedQuery",
    "ReplayResult",
    "collect_queries",
    "is_right",
    "replay",
    "run_query",
]

LARGEST_BUDGET = 64
"""Full budget where none is given: the fewest samples of any query, but at most this many."""


def replay(
    queries: Sequence[RecordedQuery],
    rules: Mapping[str, StopRule],
    *,
    orders: int = 100,
    wave: int = 1,
    max_samples: int | None = None,
    seed: int = 0,
    evidence: Evidence | None = None,
    early_cut: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Replay every rule on the same random orders of the recorded samples.

    Args:
        queries: recorded samples, see `collect_queries`.
        rules: text of a rule -> the rule.
        orders: random orders a query.
        wave: samples in flight at once.
        max_samples: the full budget; None for the fewest samples of any query, at most 64.
        seed: of the orders.
        evidence: weighs the votes that the rules see; the full budget's are never weighed.
        early_cut: cut samples that have become improbable, where the evidence says that it pays.
        progress: called with (queries done, queries in all) after each query.
    """
    budget = full_budget(queries, max_samples)
    if orders < 1 or wave < 1:
        raise ValueError(f"orders and wave must be 1 or more, not {orders} and {wave}")
    runs: dict[str, list[list[Run]]] = {name: [] for name in rules}
    full: list[tuple[float, float]] = []
    cut = EarlyCut.of(evidence) if early_cut and evidence is not None else None
    every = 1 if cut is None else cut.every
    for done, query in enumerate(queries):
        shuffled = draw_orders(query, orders, budget, seed, done)
        answers = [full_answer(query, order) for order in shuffled]
        full.append(_full_budget_of(query, shuffled, answers))
        weights, lost = query.weights(evidence), query.lost_at(cut)
        for rows in runs.values():
            rows.append([])
        for order, answer in zip(shuffled, answers, strict=True):
            ended = run_rules(query, order, list(rules.values()), wave, weights, lost, every)
            for rows, ending in zip(runs.values(), ended, strict=True):
                rows[-1].append(run_of(query, answer, ending))
        if progress:
            progress(done + 1, len(queries))
    means = np.array(full)
    return ReplayResult(
        queries=len(queries),
        orders=orders,
        wave=wave,
        max_samples=budget,
        graded=all(query.graded for query in queries),
        full_accuracy=float(means[:, 0].mean()),
        full_tokens=float(means[:, 1].mean()),
        rules=tuple(summarise(name, rows, means) for name, rows in runs.items()),
    )


def full_budget(queries: Sequence[RecordedQuery], max_samples: int | None) -> int:
    """The given budget, or the fewest samples of any query up to `LARGEST_BUDGET`."""
    if not queries:
        raise DataError("the trace holds no samples; record some first")
    fewest = min(queries, key=lambda query: len(query.groups))
    if max_samples is None:
        return min(LARGEST_BUDGET, len(fewest.groups))
    if not 1 <= max_samples <= len(fewest.groups):
        raise DataError(
            f"a budget of {max_samples} samples is not between 1 and {len(fewest.groups)}, "
            f"the recorded samples of query {fewest.id}; lower it"
        )
    return max_samples


def draw_orders(
    query: RecordedQuery, orders: int, budget: int, seed: int, index: int
) -> list[list[int]]:
    """`orders` random choices of `budget` samples in random order; own random numbers a query."""
    random = np.random.default_rng((seed, index))
    keys = random.random((orders, len(query.groups)))
    shuffled: list[list[int]] = keys.argsort(axis=1)[:, :budget].tolist()
    return shuffled


def full_answer(query: RecordedQuery, order: Sequence[int]) -> int | None:
    """Majority group of the order; among equals the one that led first, as in `Votes`."""
    counts: Counter[int] = Counter()
    leader: int | None = None
    for sample in order:
        group = query.groups[sample]
        if group is not None:
            counts[group] += 1
            if leader is None or counts[group] > counts[leader]:
                leader = group
    return leader


def _full_budget_of(
    query: RecordedQuery, orders: list[list[int]], answers: list[int | None]
) -> tuple[float, float]:
    tokens = np.array(query.tokens)[np.array(orders)].sum(axis=1).mean()
    right = [is_right(query, answer) for answer in answers]
    return float(np.mean(right)), float(tokens)
