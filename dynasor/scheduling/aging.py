"""The starvation guard: turns of the oldest gang, which bound the wait of every gang.

A gang that came `patience` seconds ago or earlier is aged. While aged gangs wait, at least one in
`turns` admissions goes to the oldest of those whose next member is ready.

**The bound.** Let an aged gang have m members that wait, and let A be the admissions that older gangs
have before the last of the m (of members that come late or are given back, too). Then this last one is
admitted with the `turns * (A + m)`-th admission from now on at the latest, as long as the gang's next
member is ready; however many younger gangs come, and whatever the policy prefers. For of every `turns`
admissions in a row at least one is among these A + m. A request that was named as the next one before
the gang was aged counts as admitted before. A gang that has had no member for `LAPSE` seconds is
forgotten (`dynasor.scheduling.queue`): whoever uses one id for ever is not old for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

from dynasor.config import SchedulerConfig
from dynasor.scheduling.lazy_heap import LazyHeap
from dynasor.scheduling.line import Line

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Aging:
    """Settings of the guard.

    Attributes:
        patience: age in seconds from which a gang is guaranteed its turns.
        turns: one in so many admissions goes to the oldest gang, if that is aged; 1 or more.
    """

    patience: float = 60.0
    turns: int = 4

    def __post_init__(self) -> None:
        if not self.patience >= 0 or self.turns < 1:
            raise ValueError(
                f"patience must be 0 or more and turns 1 or more, not {self.patience}, {self.turns}"
            )


def aging_of(settings: SchedulerConfig) -> Aging | None:
    """The guard that the `[scheduler]` section asks for, None for none."""
    return Aging(settings.patience, settings.turns) if settings.turns else None


class Turns(Generic[T]):
    """Whose turn it is by age.

    Args:
        aging: the settings.
        clock: seconds.
    """

    def __init__(self, aging: Aging, clock: Callable[[], float]) -> None:
        self._aging = aging
        self._clock = clock
        self._spells = count(1)
        self._ages: LazyHeap[tuple[int, int, Line[T]]] = LazyHeap(_still_waits)
        self._others = 0  # admissions since the oldest gang had its turn

    def begin(self, line: Line[T]) -> None:
        """Somebody waits in a line where nobody did."""
        line.spell = next(self._spells)
        self._ages.push((line.serial, line.spell, line))

    def is_aged(self, line: Line[T]) -> bool:
        """Whether the gang is guaranteed its turns."""
        return self._clock() - line.gang.arrival >= self._aging.patience

    def due(self, ready: Callable[[T], bool] | None) -> Line[T] | None:
        """The oldest aged gang that is ready, if the next admission must go to it."""
        if self._others < self._aging.turns - 1:
            return None
        line = self._oldest()
        if line is None or ready is None or ready(line.next()):
            return line
        entry = self._ages.first(lambda entry: not self.is_aged(entry[2]) or ready(entry[2].next()))
        return None if entry is None or not self.is_aged(entry[2]) else entry[2]

    def admitted(self, line: Line[T], by_turn: bool) -> None:
        """A member is about to leave its line for the batch; `by_turn` if `due` named the line."""
        oldest = self._oldest()
        self._others = 0 if by_turn or oldest is None or oldest is line else self._others + 1

    def _oldest(self) -> Line[T] | None:
        """The oldest gang that waits, if it is aged."""
        entry = self._ages.first()
        return None if entry is None or not self.is_aged(entry[2]) else entry[2]


def _still_waits(entry: tuple[int, int, Line[Any]]) -> bool:
    return entry[2].spell == entry[1]
