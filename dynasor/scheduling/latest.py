"""The latest hints of each gang, for the requests that it submits later."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from dynasor.scheduling.gang import Hints

REMEMBERED = 10_000
"""Gangs whose hints are kept."""


class LatestHints:
    """What was last said of each gang.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._hints: OrderedDict[str, tuple[Hints, float]] = OrderedDict()  # and when

    def note(self, gang: str, hints: Hints) -> None:
        """News of a gang, in place of what was known."""
        self._hints[gang] = (hints, self._clock())
        self._hints.move_to_end(gang)
        if len(self._hints) > REMEMBERED:
            self._hints.popitem(last=False)

    def __contains__(self, gang: str) -> bool:
        return gang in self._hints

    def of(self, gang: str) -> Hints:
        """What is known of a gang; its deadline is counted from now."""
        hints, then = self._hints.get(gang, (Hints(), 0.0))
        if hints.deadline is None:
            return hints
        return replace(hints, deadline=hints.deadline - (self._clock() - then))
