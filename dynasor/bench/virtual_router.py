"""Which simulated replica runs a request: the rule of the real service, and others beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal, Protocol, get_args

from algorithms.program import Request
from dynasor.scheduling.placements import Placements
from dynasor.scheduling.prefix_homes import CHARACTERS_A_TOKEN

Routing = Literal["least-expected", "two-choices", "round-robin", "single-queue"]
"""`least-expected`: a query goes as a whole to the replica with the least expected tokens of all.
`two-choices`: the rule of `dynasor.scheduling.routing`, as among real servers and in Ray Serve.
`round-robin`: each request to the next replica, as balancers do that know no gangs.
`single-queue`: one queue for all replicas; a request is bound to one when that has a free place. No
real router can do better by much, since it knows as much and need not decide before it has to."""
ROUTINGS: tuple[Routing, ...] = get_args(Routing)


class Router(Protocol):
    """Chooses a replica for each request."""

    def arrive(self, gang: str) -> None:
        """A query has come."""
        ...

    def expect(self, gang: str, tokens: float) -> None:
        """So many output tokens are expected to come from a query that has not stopped."""
        ...

    def place(self, request: Request, question: str, prompt: int) -> int | None:
        """The replica of a request with a prompt of so many tokens; None: whichever is free first."""
        ...

    def end(self, request: str, tokens: int | None) -> None:
        """A request has ended with so many output tokens, None if it was cut."""
        ...

    def leave(self, gang: str) -> None:
        """A query has stopped."""
        ...


class LeastExpected:
    """A whole query to the replica with the least expected tokens."""

    def __init__(self, replicas: int) -> None:
        self._load = [0.0] * replicas
        self._home: dict[str, int] = {}
        self._expected: dict[str, float] = {}

    def arrive(self, gang: str) -> None:
        """Give it a home."""
        self._home[gang] = min(range(len(self._load)), key=self._load.__getitem__)
        self._expected[gang] = 0.0

    def expect(self, gang: str, tokens: float) -> None:
        """Count its tokens at home."""
        self._load[self._home[gang]] += tokens - self._expected[gang]
        self._expected[gang] = tokens

    def place(self, request: Request, question: str, prompt: int) -> int | None:
        """At home."""
        return self._home[request.program]

    def end(self, request: str, tokens: int | None) -> None:
        """Nothing changes: queries are counted."""

    def leave(self, gang: str) -> None:
        """Take its tokens off."""
        self._load[self._home.pop(gang)] -= self._expected.pop(gang)


class TwoChoices:
    """The rule of the real service."""

    def __init__(self, replicas: int, places: int) -> None:
        self.placements = Placements()
        for _ in range(replicas):
            self.placements.add(places)

    def arrive(self, gang: str) -> None:
        """Its first request finds it a home."""

    def expect(self, gang: str, tokens: float) -> None:
        """As a hint tells it."""
        self.placements.hint(gang, tokens)

    def place(self, request: Request, question: str, prompt: int) -> int | None:
        """By the rule; a recorded question stands for its prompt."""
        return self.placements.place(replace(request, prompt=_text(question, prompt)))

    def end(self, request: str, tokens: int | None) -> None:
        """Take it off."""
        self.placements.end(request, tokens)

    def leave(self, gang: str) -> None:
        """Its last request has ended before."""


class RoundRobin:
    """Each request to the next replica."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self._next = -1

    def arrive(self, gang: str) -> None:
        """Nothing to know."""

    def expect(self, gang: str, tokens: float) -> None:
        """Nothing to know."""

    def place(self, request: Request, question: str, prompt: int) -> int | None:
        """The next."""
        self._next = (self._next + 1) % self._replicas
        return self._next

    def end(self, request: str, tokens: int | None) -> None:
        """Nothing to know."""

    def leave(self, gang: str) -> None:
        """Nothing to know."""


class SingleQueue(RoundRobin):
    """All wait in one queue."""

    def place(self, request: Request, question: str, prompt: int) -> int | None:
        """Not yet."""
        return None


def build_router(routing: Routing, replicas: int, places: int) -> Router:
    """A router of this name.

    Args:
        routing: see `Routing`.
        replicas: how many.
        places: requests that each runs at once.
    """
    if routing == "least-expected":
        return LeastExpected(replicas)
    if routing == "two-choices":
        return TwoChoices(replicas, places)
    return RoundRobin(replicas) if routing == "round-robin" else SingleQueue(replicas)


@lru_cache(maxsize=4096)
def _text(question: str, tokens: int) -> str:
    """A prompt that is as long as the question's and differs from all others."""
    return question.ljust(CHARACTERS_A_TOKEN * tokens)[: CHARACTERS_A_TOKEN * tokens]
