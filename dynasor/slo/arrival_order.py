"""Ended queries in the order in which they began.

Queries that begin together do not end together: the easy ones are first. Looked at as they end, the
first ones of a busy hour are easier than queries are, without any of them having changed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Q = TypeVar("Q", bound=Hashable)
V = TypeVar("V")


class ArrivalOrder(Generic[Q, V]):
    """Holds back what is known of a query until all that began before it have ended, too."""

    def __init__(self) -> None:
        self._open: dict[Q, bool] = {}  # in order of beginning; whether it has ended
        self._found: dict[Q, V] = {}

    def begin(self, query: Q) -> None:
        """A query begins."""
        self._open[query] = False

    def end(self, query: Q, value: V | None) -> list[tuple[Q, V]]:
        """A query ends; what is now due, in order.

        Args:
            query: that has begun and not ended yet; another one has no effect.
            value: known of it; None: nothing, it is left out.
        """
        if query not in self._open:
            return []
        self._open[query] = True
        if value is not None:
            self._found[query] = value
        due = []
        while self._open and self._open[first := next(iter(self._open))]:
            del self._open[first]
            if first in self._found:
                due.append((first, self._found.pop(first)))
        return due
