"""How a class of queries does against what it was promised, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Status:
    """How a class does.

    Attributes:
        setting: that new queries get when there is no overload.
        alarms: in words, oldest first.
        evidence: of drift by trait, 1 at the alarm, the most of any setting; empty where nothing is
            compared.
        seen: queries compared in the present periods.
        audited: answers that were audited and differed, and were the same; audits that were dropped.
        bounds: of the share that differs.
        epsilon: most that was promised, or None.
        level: rung of the last query; 0 where there is no overload.
        attained: share of the last answers that met the hardest latency target.
        predicted: share of the queries that came now and would meet it.
        at_deadline: share of the last answers that a deadline cut; the promised loss leaves them out.
        tokens: output tokens of a query, mean of the last answers; None before the first.
        tokens_promised: most of that, or None.
        rate: queries that came a second, over the last minute.
        planned: queries a second for which the promises were made; None where that is not said.
        refused: queries, late ones and those beyond the tokens of a day.
    """

    setting: str
    alarms: list[str]
    evidence: dict[str, float]
    seen: int
    audited: dict[str, int]
    bounds: tuple[float, float]
    epsilon: float | None
    level: int
    attained: float
    predicted: float
    at_deadline: float
    tokens: float | None
    tokens_promised: int | None
    rate: float
    planned: float | None
    refused: int
