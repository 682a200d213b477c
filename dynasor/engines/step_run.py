"""Steps of a simulated replica that are under way together, and where they can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynasor.engines.step_time import StepTime


@dataclass(slots=True)
class StepRun:
    """Steps under way.

    Attributes:
        time: of a step.
        start: when they began, seconds.
        steps: how many.
        single: one step whose KV blocks are taken; else all requests decode, and what they need is
            taken at the end.
        decoding: requests that decode.
        context: tokens that these had in the cache at the start.
    """

    time: StepTime
    start: float
    steps: int
    single: bool
    decoding: int
    context: int

    @property
    def end(self) -> float:
        """When they are over, if all their requests decode."""
        return self.start + self._seconds(self.steps)

    def end_with_the_step_at(self, now: float) -> None:
        """Leave out what would come after the first step that ends at `now` or later."""
        passed = now - self.start
        self.steps = 1 + last_that_holds(self.steps - 1, lambda k: self._seconds(k) < passed)

    def done(self, now: float) -> int:
        """Steps that are over at `now`, which is before the end."""
        return last_that_holds(self.steps - 1, lambda k: self.start + self._seconds(k) <= now)

    def _seconds(self, steps: int) -> float:
        return self.time.decode(steps, self.decoding, self.context)


def last_that_holds(most: int, holds: Callable[[int], bool]) -> int:
    """Largest number from 0 to `most` for which `holds`, which is true up to some number."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
