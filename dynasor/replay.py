"""Replay: any stop rule on recorded samples, in virtual time, the same result for the same seed.

For each query, random orders of its recorded samples; `wave` of them in flight, each decoding one
token a tick. When a sample ends it votes and the rule decides; when the query stops, the samples in
flight are cut, and the tokens that they have spent count. Latency is the time at which the query
stops, in tokens: the longest chain of samples that waited for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np

from certaindex.evidence import Evidence, likelihood
from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.errors import DataError
from dynasor.replay_results import ReplayResult, Run, summarise
from dynasor.traces import TraceSample

__all__ = [
    "ExactGroups",
    "Grouping",
    "RecordedQuery",
    "ReplayResult",
    "collect_queries",
    "replay",
]

LARGEST_BUDGET = 64
"""Full budget where none is given: the fewest samples of any query, but at most this many."""


class Grouping(Protocol):
    """Sorts answers into groups of equivalent ones (`certaindex.equivalence.AnswerGroups`)."""

    def add(self, answer: str | None) -> int | None:
        """Group of the answer, a new one where it equals no earlier answer; None for no answer."""
        ...


class ExactGroups:
    """Groups answers that are the same text."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def add(self, answer: str | None) -> int | None:
        """Group of the answer."""
        return None if answer is None else self._ids.setdefault(answer, len(self._ids))


@dataclass(frozen=True, slots=True)
class RecordedQuery:
    """All recorded samples of one query, in the order of the file.

    Attributes:
        id: name of the query.
        groups: group of each sample's answer, None where it has none.
        tokens: output tokens of each sample.
        gold: group of the right answer, None where no sample gave it.
        graded: whether the right answer is known.
        likelihoods: of each sample (see `certaindex.evidence`); empty where some were not recorded.
    """

    id: str
    groups: tuple[int | None, ...]
    tokens: tuple[int, ...]
    gold: int | None
    graded: bool = True
    likelihoods: tuple[float, ...] = ()

    def weights(self, evidence: Evidence | None) -> Sequence[float]:
        """Vote weight of each sample: 1, or what its likelihood says."""
        if evidence is None or not self.likelihoods:
            return [1.0] * len(self.groups)
        return [evidence.weigh((value,)) for value in self.likelihoods]


def collect_queries(
    samples: Iterable[TraceSample], grouping: Callable[[], Grouping] = ExactGroups
) -> list[RecordedQuery]:
    """Gather the samples of each query and sort their answers into groups."""
    collected: dict[str, list[TraceSample]] = {}
    for sample in samples:
        collected.setdefault(sample.query, []).append(sample)
    return [_query(name, rows, grouping()) for name, rows in collected.items()]


def _query(name: str, rows: list[TraceSample], grouping: Grouping) -> RecordedQuery:
    groups = tuple(grouping.add(row.answer) for row in rows)
    gold = grouping.add(rows[0].gold)  # last, so that the gold text cannot stand for a group
    return RecordedQuery(
        name,
        groups,
        tuple(row.tokens for row in rows),
        gold if gold in set(groups) else None,
        graded=rows[0].gold is not None,
        likelihoods=tuple(likelihood(row.logprobs) for row in rows if row.logprobs)
        if all(row.logprobs for row in rows)
        else (),
    )


def replay(
    queries: Sequence[RecordedQuery],
    rules: Mapping[str, StopRule],
    *,
    orders: int = 100,
    wave: int = 1,
    max_samples: int | None = None,
    seed: int = 0,
    evidence: Evidence | None = None,
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
        progress: called with (queries done, queries in all) after each query.
    """
    budget = full_budget(queries, max_samples)
    if orders < 1 or wave < 1:
        raise ValueError(f"orders and wave must be 1 or more, not {orders} and {wave}")
    runs: dict[str, list[list[Run]]] = {name: [] for name in rules}
    full: list[tuple[float, float]] = []
    for done, query in enumerate(queries):
        shuffled = draw_orders(query, orders, budget, seed, done)
        answers = [full_answer(query, order) for order in shuffled]
        full.append(_full_budget_of(query, shuffled, answers))
        weights = query.weights(evidence)
        for name, rule in rules.items():
            runs[name].append(
                [
                    run_query(query, order, rule, wave, answer, weights)
                    for order, answer in zip(shuffled, answers, strict=True)
                ]
            )
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


def is_right(query: RecordedQuery, answer: int | None) -> bool:
    """Whether an answer group is the gold one."""
    return answer is not None and answer == query.gold


def run_query(
    query: RecordedQuery,
    order: Sequence[int],
    rule: StopRule,
    wave: int,
    full: int | None,
    weights: Sequence[float] | None = None,
) -> Run:
    """One query in one order, `wave` samples in flight, until the rule stops it.

    Votes count 1 each where `weights` (of the samples, in the order of the file) is None.
    """
    votes = Votes(max_samples=len(order))
    dense: dict[int, int] = {}  # the query's group -> the votes' group, first seen first
    running: list[tuple[int, int]] = []  # (end, position in the order)
    started, reason = 0, "complete"
    now = 0
    while started < min(wave, len(order)):
        heappush(running, (query.tokens[order[started]], started))
        started += 1
    while running:
        now, position = heappop(running)
        sample = order[position]
        group = query.groups[sample]
        seen = None if group is None else dense.setdefault(group, len(dense))
        votes.in_flight = len(running)
        votes.add(seen, query.tokens[sample], 1.0 if weights is None else weights[sample])
        if votes.n == len(order):
            break
        verdict = rule.decide(votes)
        if verdict.stop:
            reason = verdict.stop
            break
        if started < len(order):
            heappush(running, (now + query.tokens[order[started]], started))
            started += 1
    # Those in flight began (end - tokens) and are cut now.
    cut = sum(now - (end - query.tokens[order[position]]) for end, position in running)
    answer = None if votes.leader is None else list(dense)[votes.leader]
    return Run(
        is_right(query, answer), answer == full, votes.total_tokens + cut, votes.n, now, reason
    )
