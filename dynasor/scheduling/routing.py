"""Which replica runs a request: a pure rule, from facts about the replicas and the request's gang.

1. A request that goes on from text already written (a branch of a tree, a probe of a chain) goes to the
   replica that wrote the text, however full it is: a branch is never taken from its parent.
2. Any other request of a gang goes to the gang's home while that has a free place. If it has none, the
   gang is split only where that ends it sooner: where another replica, after it has computed the prompt
   anew, would begin the request before the home does.
3. A gang without a home gets one: of two replicas drawn at random (power of two choices) and of those
   that hold a part of its prompt, the one with the least expected tokens, those of the prompt that it
   would have to compute counted with `PREFILL` each.

The same rule routes among OpenAI-compatible servers, in Ray Serve, and in the simulator. It looks at two
replicas and at the holders of the prompt, so its cost does not grow with the number of replicas.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

PREFILL = 0.3
"""What a token of a prompt costs a replica, in output tokens: about the ratio of the two coefficients in
`dynasor.engines.step_time` on large GPUs (3e-5 and 1e-4 seconds)."""
_DRAWS = 8  # before the usable ones are listed


@dataclass(slots=True)
class ReplicaFacts:
    """What is known of a replica.

    Attributes:
        places: requests that it runs at once.
        requests: that it has, running and waiting.
        expected: output tokens that are expected to come from their gangs.
        usable: whether it takes requests: it lives, and is not about to leave.
    """

    places: int
    requests: int = 0
    expected: float = 0.0
    usable: bool = True

    @property
    def wait(self) -> float:
        """Output tokens that it generates until one more request gets a place.

        With as many requests as places it is one request's share of the expected tokens, with w more
        that wait it is w + 1 shares. Tokens, not seconds: the replicas are alike.
        """
        if self.requests < self.places:
            return 0.0
        return self.expected * (self.requests - self.places + 1) / self.requests


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request to be placed; replicas are known by their index.

    Attributes:
        home: of its gang, None if it has none yet.
        author: the replica that wrote the text from which the request goes on, None if there is no text.
        prompt: tokens of its prompt.
        held: for replicas that are believed to hold a part of it, how many tokens.
    """

    prompt: float
    home: int | None = None
    author: int | None = None
    held: Mapping[int, float] | None = None

    def prefill(self, replica: int) -> float:
        """What computing the prompt there costs, output tokens."""
        held = 0.0 if self.held is None else self.held.get(replica, 0.0)
        return PREFILL * max(self.prompt - held, 0.0)


def route(
    wanted: Wanted,
    replicas: Sequence[ReplicaFacts],
    draw: Random,
    exclude: Collection[int] = (),
) -> int:
    """The replica for a request; see the module.

    Args:
        wanted: the request.
        replicas: all of them.
        draw: for the two choices.
        exclude: replicas that failed the request before; they come last, as unusable ones do.

    Raises:
        ValueError: if there is no replica.
    """
    if wanted.author is not None and _usable(wanted.author, replicas, exclude):
        return wanted.author
    home = wanted.home
    at_home = home is not None and _usable(home, replicas, exclude)
    if at_home and home is not None and replicas[home].requests < replicas[home].places:
        return home
    choices = two_choices(replicas, draw, exclude)
    choices += [r for r in wanted.held or () if _usable(r, replicas, exclude)]
    if home is None or not at_home:
        return min(choices, key=lambda r: (replicas[r].expected + wanted.prefill(r), r))
    best = min(choices, key=lambda r: (replicas[r].wait + wanted.prefill(r), r))
    sooner = replicas[best].wait + wanted.prefill(best) < replicas[home].wait
    return best if sooner else home


def two_choices(
    replicas: Sequence[ReplicaFacts], draw: Random, exclude: Collection[int] = ()
) -> list[int]:
    """Two usable replicas drawn at random, or one if there is no more.

    Where none is usable two of those that did not fail the request, where all did two of any: a request
    must go somewhere, and an error of the last server says more than ours.

    Raises:
        ValueError: if there is no replica.
    """
    if not replicas:
        raise ValueError("there is no replica to choose from")
    found: list[int] = []
    for _ in range(_DRAWS):  # mostly two are enough, however many replicas there are
        replica = draw.randrange(len(replicas))
        if replica not in found and _usable(replica, replicas, exclude):
            found.append(replica)
            if len(found) == 2:
                return found
    everyone = range(len(replicas))
    fit = (
        [r for r in everyone if _usable(r, replicas, exclude)]
        or [r for r in everyone if r not in exclude]
        or list(everyone)
    )
    return draw.sample(fit, min(2, len(fit)))


def _usable(replica: int, replicas: Sequence[ReplicaFacts], exclude: Collection[int]) -> bool:
    return replicas[replica].usable and replica not in exclude
