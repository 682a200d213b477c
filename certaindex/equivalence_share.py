"""What one query may take of the equivalence workers that it shares with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from certaindex.equivalence import AnswerEquivalence

WORK_SECONDS = 10.0
"""Of a worker for all comparisons of one query. Sixty different formulas of a mathematics contest, each
with each, take a few seconds."""


@dataclass(slots=True)
class Allowance:
    """What is left to a query, seconds.

    Attributes:
        work: of a worker. Once it is used up, answers are the same if the cheap rules say so.
        wait: for a worker that others hold. Once it is used up, only a free one is asked.
    """

    work: float
    wait: float


class QueryShare:
    """The answers of one query, compared by shared workers within an allowance.

    So no query waits longer for the hostile answers of others, all its comparisons together, than
    `wait`, and none keeps a worker longer than `work`.

    Args:
        shared: the workers.
        work: see `Allowance`; None for `WORK_SECONDS`.
        wait: see `Allowance`; None for the deadline of one comparison.
    """

    def __init__(
        self,
        shared: AnswerEquivalence,
        *,
        work: float | None = None,
        wait: float | None = None,
    ) -> None:
        self._shared = shared
        self.left = Allowance(
            WORK_SECONDS if work is None else work, shared.deadline if wait is None else wait
        )

    def same_as_any(self, new: str, representatives: Sequence[str]) -> int | None:
        """See `AnswerEquivalence`."""
        return self._shared.same_as_any(new, representatives, self.left)
