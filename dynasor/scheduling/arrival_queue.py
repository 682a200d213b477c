"""vLLM's own order of single requests, with the interface of a gang queue: for baselines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from dynasor.scheduling.gang import Hints

T = TypeVar("T", bound=Hashable)


class ArrivalQueue(Generic[T]):
    """First come, first served; what was preempted goes to the front. It knows no gangs."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[T, None] = OrderedDict()
        self.pace = 0.0
        self.typical = 100.0  # who serves in order of arrival does not look ahead

    def add(self, item: T, gang: str | None, name: str, hints: Hints | None = None) -> None:
        """A request has come."""
        self._waiting[item] = None

    def give_back(self, item: T) -> None:
        """A request that was taken waits again, before all others."""
        self._waiting[item] = None
        self._waiting.move_to_end(item, last=False)

    def end(self, item: T, served: int = 0, finished: bool = False) -> None:
        """A request has ended or was cut."""
        self._waiting.pop(item, None)

    def hint(self, gang: str, hints: Hints) -> None:
        """Nothing to order by it."""

    def peek(self) -> T | None:
        """The request to admit next, None if none waits."""
        return next(iter(self._waiting), None)

    def take(self) -> T:
        """Admit the request that `peek` names.

        Raises:
            IndexError: if there is none.
        """
        if not self._waiting:
            raise IndexError("no request waits")
        return self._waiting.popitem(last=False)[0]

    def standing(self, item: T) -> tuple[float, ...]:
        """The same for all: the one that was admitted last is the first to be preempted."""
        return ()

    def reconsider(self) -> None:
        """Time changes nothing."""

    def __len__(self) -> int:
        return len(self._waiting)
