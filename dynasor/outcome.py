"""What became of a query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from algorithms.program import Answer, Certainty
from dynasor.allocator import StopReason, TokenBill


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a query.

    Attributes:
        query: its id.
        answer: the answer and its rivals.
        certainty: at the end.
        reason: why it stopped.
        samples: finished answers that were compared: samples, probes or leaves.
        failed: requests that the engine failed.
        bill: tokens.
        seconds: from admission to the answer.
        errors: the first messages of failed requests.
    """

    query: str
    answer: Answer
    certainty: Certainty
    reason: StopReason | Literal["failed"]
    samples: int
    failed: int
    bill: TokenBill
    seconds: float
    errors: tuple[str, ...] = ()
