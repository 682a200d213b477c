"""What a replay reports: means over runs, and intervals over queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynasor.intervals import Interval, bootstrap


class Run(NamedTuple):
    """One query in one order: did the rule's answer hit, and what did it cost."""

    right: bool
    same: bool  # as the full budget's answer
    tokens: int
    samples: int
    latency: int
    reason: str


_GRADES = ("accuracy", "accuracy_interval", "loss", "loss_interval")


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule on all queries and orders; means a query, intervals of 95% over queries.

    Attributes:
        rule: its text.
        accuracy: share of runs whose answer is the gold one.
        tokens: tokens a query, those of cut samples included.
        tokens_ratio: against the full budget.
        samples: finished samples a query.
        agreement: share of runs with the same answer as the full budget's, in the same order.
        latency: tokens until the query stops.
        loss: accuracy of the full budget less that of the rule, in points.
        reasons: stop reason -> share of runs; `complete` where the budget was used up.
        accuracy_interval, tokens_ratio_interval, loss_interval: bootstrap over queries.
        by_query: (queries, 4) float64: means over orders of right, tokens, latency, loss.
    """

    rule: str
    accuracy: float
    tokens: float
    tokens_ratio: float
    samples: float
    agreement: float
    latency: float
    loss: float
    reasons: Mapping[str, float]
    accuracy_interval: Interval
    tokens_ratio_interval: Interval
    loss_interval: Interval
    by_query: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows a query, ready for `json.dumps`."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "by_query"} | {
            "reasons": dict(self.reasons)
        }


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """All rules on the same orders of the same samples.

    Attributes:
        graded: whether the right answer of every query is known; else accuracy and loss mean nothing.
    """

    queries: int
    orders: int
    wave: int
    max_samples: int
    graded: bool
    full_accuracy: float
    full_tokens: float
    rules: tuple[RuleResult, ...]

    def to_json(self) -> dict[str, Any]:
        """`{"queries": n, ..., "rules": [...]}`; accuracy and loss are null where not graded."""
        head = {name: getattr(self, name) for name in self.__slots__ if name != "rules"}
        rules = [rule.to_json() for rule in self.rules]
        if not self.graded:
            head["full_accuracy"] = None
            rules = [rule | dict.fromkeys(_GRADES) for rule in rules]
        return head | {"rules": rules}


def summarise(name: str, runs: list[list[Run]], full: NDArray[np.float64]) -> RuleResult:
    """Means over orders and queries, and bootstrap intervals over queries.

    Args:
        name: text of the rule.
        runs: for each query its runs.
        full: (queries, 2) accuracy and tokens of the full budget.
    """
    numbers = np.array([[run[:5] for run in rows] for rows in runs], dtype=np.float64).mean(axis=1)
    right, same, tokens, samples, latency = numbers.T
    loss = 100 * (full[:, 0] - right)
    reasons = Counter(run.reason for rows in runs for run in rows)
    total = reasons.total()
    return RuleResult(
        rule=name,
        accuracy=float(right.mean()),
        tokens=float(tokens.mean()),
        tokens_ratio=float(tokens.mean() / full[:, 1].mean()),
        samples=float(samples.mean()),
        agreement=float(same.mean()),
        latency=float(latency.mean()),
        loss=float(loss.mean()),
        reasons={reason: count / total for reason, count in reasons.items()},
        accuracy_interval=bootstrap(right),
        tokens_ratio_interval=bootstrap(tokens, full[:, 1]),
        loss_interval=bootstrap(loss),
        by_query=np.column_stack([right, tokens, latency, loss]),
    )
