"""Replay of the global budget: one budget of tokens for all queries of a trace.

Each query gets one sample first; from then on the next sample goes to the query whose next token is
worth most. Virtual time does not matter here: one sample runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from certaindex.votes import Votes
from dynasor.replay import (
    RecordedQuery,
    draw_orders,
    full_answer,
    full_budget,
    is_right,
)
from dynasor.replay_results import RuleResult, Run, summarise


def replay_budget(
    queries: Sequence[RecordedQuery],
    value: Callable[[Votes], float],
    *,
    budget: float,
    orders: int = 100,
    max_samples: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RuleResult:
    """Share `budget` times the full budget's tokens among all queries.

    Args:
        queries: recorded samples, see `dynasor.replay.collect_queries`.
        value: urgency of the next sample, see `certaindex.value`.
        budget: share of the tokens that the full budget costs in the same orders, above 0 to 1.
        orders: random orders; the same as those of `dynasor.replay.replay` with the same seed.
        max_samples: samples a query at most, see `dynasor.replay.full_budget`.
        seed: of the orders.
        progress: called with (orders done, orders in all).
    """
    if not 0 < budget <= 1:
        raise ValueError(f"budget must be above 0 and at most 1, not {budget}")
    size = full_budget(queries, max_samples)
    shuffled = [draw_orders(query, orders, size, seed, i) for i, query in enumerate(queries)]
    runs: list[list[Run]] = [[] for _ in queries]
    full = np.zeros((len(queries), 2))
    for number in range(orders):
        row = [choices[number] for choices in shuffled]
        answers = [full_answer(query, order) for query, order in zip(queries, row, strict=True)]
        costs = [
            sum(query.tokens[sample] for sample in order)
            for query, order in zip(queries, row, strict=True)
        ]
        right = [is_right(query, answer) for query, answer in zip(queries, answers, strict=True)]
        full += np.column_stack([right, costs]) / orders
        outcome = _share(queries, row, answers, value, int(budget * sum(costs)))
        for rows, run in zip(runs, outcome, strict=True):
            rows.append(run)
        if progress:
            progress(number + 1, orders)
    return summarise(f"budget:{budget:g}", runs, full)


def _share(
    queries: Sequence[RecordedQuery],
    orders: Sequence[Sequence[int]],
    answers: Sequence[int | None],
    value: Callable[[Votes], float],
    left: int,
) -> list[Run]:
    """One order of each query; a sample that the budget cuts counts its tokens and gives no vote."""
    votes = [Votes(max_samples=len(order)) for order in orders]
    dense: list[dict[int, int]] = [{} for _ in orders]
    cut = [0] * len(orders)
    heap = [(-float("inf"), index) for index in range(len(orders))]
    heapify(heap)
    while heap and left > 0:
        _, index = heappop(heap)
        ballot, ids = votes[index], dense[index]
        sample = orders[index][ballot.n]
        tokens, group = queries[index].tokens[sample], queries[index].groups[sample]
        if tokens > left:
            cut[index], left = left, 0
            break
        left -= tokens
        ballot.add(None if group is None else ids.setdefault(group, len(ids)), tokens)
        if ballot.remaining:
            heappush(heap, (-value(ballot), index))
    runs = []
    for index, (ballot, ids) in enumerate(zip(votes, dense, strict=True)):
        answer = None if ballot.leader is None else list(ids)[ballot.leader]
        tokens = ballot.total_tokens + cut[index]
        reason = "budget" if ballot.remaining else "complete"
        hit = is_right(queries[index], answer)
        runs.append(Run(hit, answer == answers[index], tokens, ballot.n, tokens, reason))
    return runs
