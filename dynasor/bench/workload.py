"""What the online benchmark sends and what it gets back, on the real engine and in the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNFINISHED = "unfinished"
"""Reason of a query that had no answer when its run was given up; its latency is a lower bound."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One query or chat that arrives.

    Attributes:
        id: unique in its run.
        time: seconds from the start of the run.
        question: id of the suite's query, or of the recorded query, that is asked.
        kind: a reasoning query (many samples), or a plain chat (one request).
        group: class of the query for SLOs, such as its level; deadlines scale with the unloaded
            latency of the group.
        deadline: seconds from the arrival, None for none.
    """

    id: str
    time: float
    question: str
    kind: Literal["query", "chat"]
    group: str
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of an arrival.

    Attributes:
        arrival: what arrived.
        latency: seconds from the arrival (as scheduled) to the answer.
        first_service: seconds from the arrival to the first token of the first request, where known.
        correct: whether the answer is right, None without a gold answer.
        tokens: output tokens, those of cut samples included.
        samples: finished samples.
        reason: why it stopped; `failed` where the engine failed it, or `unfinished`.
    """

    arrival: Arrival
    latency: float
    first_service: float | None
    correct: bool | None
    tokens: int
    samples: int
    reason: str

    @property
    def answered(self) -> bool:
        """Whether there is an answer at all."""
        return self.reason not in ("failed", UNFINISHED)

    @property
    def met(self) -> bool:
        """Whether the answer was in time."""
        due = self.arrival.deadline
        return self.answered and (due is None or self.latency <= due)
