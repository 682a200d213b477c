"""A gang: the requests of one reasoning query, and what a scheduler knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

LONGEST_ID = 256
GANG = "gang"
"""Name under which a request carries the id of its gang."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the front end tells the scheduler of a gang; None means not known.

    Attributes:
        tokens: output tokens that are expected to come yet from the whole gang.
        rank: predicted place of this request among others, smaller is shorter; only the order counts.
        certainty: of the gang's answer so far, 0 to 1.
        deadline: seconds from now at which the gang's answer is due; negative once it is late.
        weight: what the gang counts for against others; one of weight 2 is ordered as if half as much
            were to come from it.
    """

    tokens: float | None = None
    rank: float | None = None
    certainty: float | None = None
    deadline: float | None = None
    weight: float | None = None

    def as_arguments(self) -> dict[str, float]:
        """Flat names and values, as a request carries them; see `read_hints`."""
        values = {
            f"{GANG}_tokens": self.tokens,
            f"{GANG}_rank": self.rank,
            f"{GANG}_certainty": self.certainty,
            f"{GANG}_deadline": self.deadline,
            f"{GANG}_weight": self.weight,
        }
        return {name: value for name, value in values.items() if value is not None}


def read_hints(arguments: Any) -> tuple[str | None, Hints]:
    """Gang id and hints out of a request's extra arguments.

    They may come from anybody's client, so what is missing or malformed is left out: a request
    without a proper id is a gang of its own, and a number that is none, is not finite or is out of
    range is not known. Whatever is no mapping at all says nothing.
    """
    if not isinstance(arguments, Mapping):
        return None, Hints()
    return read_id(arguments.get(GANG)), Hints(
        tokens=_number(arguments.get(f"{GANG}_tokens"), 0, 1e12),
        rank=_number(arguments.get(f"{GANG}_rank"), -1e12, 1e12),
        certainty=_number(arguments.get(f"{GANG}_certainty"), 0, 1),
        deadline=_number(arguments.get(f"{GANG}_deadline"), -1e9, 1e9),
        weight=_number(arguments.get(f"{GANG}_weight"), 1e-12, 1e12),
    )


def read_id(value: Any) -> str | None:
    """A gang id, or None where the value is none: a text or an integer of 1 to 256 characters."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if isinstance(value, int) and abs(value) >= 10**LONGEST_ID:
        return None
    name = str(value)
    return name if 0 < len(name) <= LONGEST_ID else None


def _number(value: Any, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if least <= value <= most and isfinite(value) else None


@dataclass(slots=True, eq=False)
class Gang:
    """Facts of one gang, kept by the scheduler's queue.

    Attributes:
        id: name of the gang.
        arrival: when the first request of its life came (a gang that has no member for a while is
            forgotten), seconds of the scheduler's clock.
        waiting: members that wait.
        running: members in the batch.
        attained: tokens that its ended members were served, finished and cut ones.
        tokens: output tokens that were expected to come from it when it was last hinted, or None.
        attained_then: `attained` at that time.
        rank: predicted place among others, or None.
        certainty: of its answer so far, or None.
        deadline: when its answer is due, same clock, or None.
        weight: what it counts for against others.
    """

    id: str
    arrival: float
    waiting: int = 0
    running: int = 0
    attained: int = 0
    tokens: float | None = None
    attained_then: int = 0
    rank: float | None = None
    certainty: float | None = None
    deadline: float | None = None
    weight: float = 1.0

    @property
    def members(self) -> int:
        """Requests in the scheduler's hands."""
        return self.waiting + self.running

    def take(self, hints: Hints, now: float) -> None:
        """Note what a hint says; what it leaves out stays as it was."""
        if hints.tokens is not None:
            self.tokens = hints.tokens
            self.attained_then = self.attained
        if hints.rank is not None:
            self.rank = hints.rank
        if hints.certainty is not None:
            self.certainty = hints.certainty
        if hints.deadline is not None:
            self.deadline = now + hints.deadline
        if hints.weight is not None:
            self.weight = hints.weight

    def remaining(self, typical: float) -> float:
        """Expected output tokens to come: the hint less what was served since.

        Without a hint, and at least where more came than the hint said, it is counted by what
        requests `typical`ly take: a member that runs on has half of that to go, for want of better.
        """
        guess = typical * (self.waiting + 0.5 * self.running)
        if self.tokens is None:
            return guess
        return max(self.tokens - (self.attained - self.attained_then), 0.1 * guess)

    def work(self, typical: float) -> float:
        """Remaining tokens over the weight: who has the least of it goes first where work decides.

        Without later arrivals this order has the least weighted sum of waiting times (Smith, "Various
        optimizers for single-stage production", 1956).
        """
        return self.remaining(typical) / self.weight
