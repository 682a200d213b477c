"""A heap whose entries may become void while they are in it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

E = TypeVar("E", bound=tuple[Any, ...])

_SMALLEST = 64
_SLACK = 8  # more makes clearing up rarer and the heap larger


class LazyHeap(Generic[E]):
    """Smallest entry first. Void entries leave when they come to the top, or fill most of the heap.

    A push costs O(log n) on average, n being the entries that are not void.

    Args:
        is_valid: whether an entry still counts; once void it stays so.
    """

    def __init__(self, is_valid: Callable[[E], bool]) -> None:
        self._is_valid = is_valid
        self._entries: list[E] = []
        self._limit = _SMALLEST

    def push(self, entry: E) -> None:
        """Put an entry in."""
        heappush(self._entries, entry)
        if len(self._entries) > self._limit:
            self._entries = [each for each in self._entries if self._is_valid(each)]
            heapify(self._entries)
            self._limit = _SLACK * len(self._entries) + _SMALLEST

    def first(self, accept: Callable[[E], bool] | None = None) -> E | None:
        """The smallest entry, or the smallest that is accepted; None if there is none."""
        passed: list[E] = []
        found = None
        while self._entries:
            entry = self._entries[0]
            if self._is_valid(entry):
                if accept is None or accept(entry):
                    found = entry
                    break
                passed.append(entry)
            heappop(self._entries)
        for entry in passed:
            heappush(self._entries, entry)
        return found

    def pop(self) -> E:
        """Take out the entry that `first` named without a condition."""
        return heappop(self._entries)

    def __len__(self) -> int:
        """Entries, void ones included: what it holds in memory."""
        return len(self._entries)
