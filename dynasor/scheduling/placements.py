"""What runs where: the facts that the routing rule goes by, kept up to date request by request."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random

from algorithms.program import Request
from dynasor.scheduling.prefix_homes import PrefixHomes, tokens_of
from dynasor.scheduling.routing import ReplicaFacts, Wanted, route

REMEMBERED = 10_000
"""Gangs whose home is kept after their last request."""
TYPICAL = 500.0
"""Output tokens of a request before any has ended."""
_MEMORY = 500  # ended requests that the typical length looks back on
_LEAST = 0.1  # of what its members typically take, however little a hint says


@dataclass(slots=True, eq=False)
class _Gang:
    """Facts of one gang.

    Attributes:
        home: its replica.
        tokens: output tokens that are expected to come from it by its last hint, or None.
        members: its requests that run or wait -> their replica.
        share: members on each replica.
        charged: expected tokens that are counted on each replica.
    """

    home: int | None = None
    tokens: float | None = None
    members: dict[str, int] = field(default_factory=dict)
    share: Counter[int] = field(default_factory=Counter)
    charged: dict[int, float] = field(default_factory=dict)


class Placements:
    """Places requests on replicas and keeps account of them.

    Args:
        seed: of the two choices.
    """

    def __init__(self, seed: int = 0) -> None:
        self.replicas: list[ReplicaFacts] = []
        """Facts by index; the caller sets `usable`."""
        self._draw = Random(seed)
        self._gangs: OrderedDict[str, _Gang] = OrderedDict()  # oldest use first
        self._gang_of: dict[str, str] = {}  # request -> gang
        self._prefixes = PrefixHomes()
        self._typical = TYPICAL
        self._ended = 0
        self._lost: list[int] = []

    def add(self, places: int) -> int:
        """A replica has come; its index, which may be that of a lost one that has nothing left."""
        facts = ReplicaFacts(places)
        for index in self._lost:
            if not self.replicas[index].requests:
                self._lost.remove(index)
                self.replicas[index] = facts
                return index
        self.replicas.append(facts)
        return len(self.replicas) - 1

    def lost(self, replica: int) -> None:
        """A replica is gone with all KV that it held, or is about to go: use it no more."""
        self.replicas[replica].usable = False
        self._prefixes.forget(replica)
        if replica not in self._lost:
            self._lost.append(replica)

    def place(
        self, request: Request, exclude: Collection[int] = (), author: int | None = None
    ) -> int:
        """Choose a replica for a request and count it there until `end`.

        Args:
            request: placed anew if it was placed before, as after a failure.
            exclude: replicas that failed it.
            author: the replica that wrote the text which the request goes on from; home if None.

        Returns:
            index of the replica.
        """
        gang = self._known(request.program)
        self._take(request.id)
        homeless = gang.home is None or not self.replicas[gang.home].usable
        wanted = Wanted(
            prompt=tokens_of(request.prompt),
            home=gang.home,
            author=gang.home if request.prefix and author is None else author,
            held=self._prefixes.held(request.prompt)
            if homeless
            else dict.fromkeys(gang.share, float("inf")),  # siblings hold all of it
        )
        replica = route(wanted, self.replicas, self._draw, exclude)
        if homeless or gang.home in exclude:
            gang.home = replica
            self._prefixes.note(request.prompt, replica)
        gang.members[request.id] = replica
        gang.share[replica] += 1
        self.replicas[replica].requests += 1
        self._gang_of[request.id] = request.program
        self._charge(gang)
        return replica

    def hint(self, gang: str, tokens: float | None) -> None:
        """Output tokens that are expected to come yet from a gang."""
        if tokens is not None:
            known = self._known(gang)
            known.tokens = tokens
            self._charge(known)

    def end(self, request: str, tokens: int | None = None) -> None:
        """A request has left its replica, with so many tokens if it ran to its end."""
        if self._take(request) and tokens is not None:
            self._ended += 1
            self._typical += (tokens - self._typical) / min(self._ended + 1, _MEMORY)

    def _known(self, name: str) -> _Gang:
        gang = self._gangs.get(name)
        if gang is None:
            gang = self._gangs[name] = _Gang()
            if len(self._gangs) > REMEMBERED:
                oldest = next(iter(self._gangs))
                if self._gangs[oldest].members:  # it is in use
                    self._gangs.move_to_end(oldest)
                else:
                    del self._gangs[oldest]
        self._gangs.move_to_end(name)
        return gang

    def _take(self, request: str) -> bool:
        """Take a request from the account; whether it was there."""
        name = self._gang_of.pop(request, None)
        if name is None:
            return False
        gang = self._gangs[name]
        replica = gang.members.pop(request)
        gang.share[replica] -= 1
        if not gang.share[replica]:
            del gang.share[replica]
        self.replicas[replica].requests -= 1
        self._charge(gang)
        return True

    def _charge(self, gang: _Gang) -> None:
        """Count what the gang is expected to generate where its members are."""
        for replica, tokens in gang.charged.items():
            facts = self.replicas[replica]
            facts.expected = facts.expected - tokens if facts.requests else 0.0  # sums drift
        members = len(gang.members)
        guess = self._typical * members
        total = guess if gang.tokens is None else max(gang.tokens, _LEAST * guess)
        gang.charged = {replica: total * n / members for replica, n in gang.share.items()}
        for replica, tokens in gang.charged.items():
            self.replicas[replica].expected += tokens
