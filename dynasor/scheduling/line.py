"""A gang's waiting members, and where the gang stands in the queue."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from dynasor.scheduling.gang import Gang
from dynasor.scheduling.policies import Place

T = TypeVar("T", bound=Hashable)


class Line(Generic[T]):
    """One gang in the queue.

    Args:
        gang: its facts.
        serial: counts the gangs as they came, so it breaks ties by arrival.

    Attributes:
        items: members that wait, next first.
        place: by the policy; None while the gang has no member.
        version: of its valid entry among the places, 0 while nobody waits.
        spell: number of the time that somebody waits, 0 while nobody does.
    """

    __slots__ = ("gang", "items", "place", "serial", "spell", "version")

    def __init__(self, gang: Gang, serial: int) -> None:
        self.gang = gang
        self.serial = serial
        self.items: OrderedDict[T, None] = OrderedDict()
        self.place: Place | None = None
        self.version = 0
        self.spell = 0

    def next(self) -> T:
        """The member that is admitted next; somebody must wait."""
        return next(iter(self.items))
