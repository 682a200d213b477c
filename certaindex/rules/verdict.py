"""What a stop rule is: one method that looks at votes and gives a verdict."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from certaindex.votes import Votes

StopReason = Literal["certain", "hopeless"]


class Verdict(NamedTuple):
    """A rule's decision after a finished sample.

    Attributes:
        stop: why to stop, or None to go on. `certain`: the leader will do. `hopeless`: more samples
            would not make it right.
        value: the evidence that the rule compared with its threshold.
    """

    stop: StopReason | None
    value: float


class StopRule(Protocol):
    """Decides after each finished sample whether a query needs more of them."""

    def decide(self, votes: Votes) -> Verdict:
        """Stop or go on; asked after each finished sample, so `votes.n` is 1 or more."""
        ...


def certain_if(enough: bool, value: float) -> Verdict:
    """Stop as certain where the evidence is enough."""
    return Verdict("certain" if enough else None, value)


def require(rule: str, parameter: str, value: float, allowed: str, fits: bool) -> None:
    """Raise a ValueError that names rule, parameter, value and what is allowed, unless it fits."""
    if not fits:
        raise ValueError(f"rule {rule}: {parameter} must be {allowed}, not {value}")
