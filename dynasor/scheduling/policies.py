"""Scheduling policies: from the facts of a gang to its place in the order.

A policy is pure and knows neither engine nor clock. The same object orders vLLM's waiting queue and
its preemption victims, the admission in front of a remote server, and the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log2
from typing import ClassVar, NamedTuple, Protocol

from dynasor.errors import ConfigError
from dynasor.scheduling.gang import Gang

UNRANKED = 0.0


class Moment(NamedTuple):
    """What a policy may know besides the gang.

    Attributes:
        now: seconds of the scheduler's clock.
        typical: output tokens that a request takes on average.
        pace: seconds that the engine takes for one more token of a request.
    """

    now: float
    typical: float
    pace: float


class Place(NamedTuple):
    """Where a gang stands: the smaller the key, the sooner it is served.

    Attributes:
        key: compared from left to right; equal ones go by arrival.
        until: when the key is to be asked for again though nothing happened to the gang.
    """

    key: tuple[float, ...]
    until: float = inf


class Policy(Protocol):
    """Orders gangs, or single requests if `by_request`: each is then a gang of its own."""

    name: ClassVar[str]
    by_request: ClassVar[bool]

    def place(self, gang: Gang, at: Moment) -> Place:
        """Place of the gang, from its facts alone."""
        ...


@dataclass(frozen=True, slots=True)
class Fcfs:
    """Requests in order of arrival, whatever query they belong to: what vLLM does."""

    name: ClassVar[str] = "fcfs"
    by_request: ClassVar[bool] = True

    def place(self, gang: Gang, at: Moment) -> Place:
        """By arrival."""
        return Place((gang.arrival,))


@dataclass(frozen=True, slots=True)
class GangFcfs:
    """Whole queries in order of arrival (Parrot; Lin et al., OSDI 2024)."""

    name: ClassVar[str] = "gang-fcfs"
    by_request: ClassVar[bool] = False

    def place(self, gang: Gang, at: Moment) -> Place:
        """By arrival of the query."""
        return Place((gang.arrival,))


@dataclass(frozen=True, slots=True)
class SjfRank:
    """Requests by their predicted rank, shortest first (learning to rank; Fu et al., 2024)."""

    name: ClassVar[str] = "sjf-rank"
    by_request: ClassVar[bool] = True

    def place(self, gang: Gang, at: Moment) -> Place:
        """By rank; a request without one stands at 0, the middle of centred ranks."""
        return Place((UNRANKED if gang.rank is None else gang.rank,))


@dataclass(frozen=True, slots=True)
class LeastAttained:
    """The query that was served least goes first, in doubling levels (Autellix; Luo et al., 2025).

    Attributes:
        quantum: tokens of the first level; each next level is twice as wide.
    """

    quantum: int = 256
    name: ClassVar[str] = "least-attained"
    by_request: ClassVar[bool] = False

    def place(self, gang: Gang, at: Moment) -> Place:
        """By level of the tokens served, then by arrival."""
        return Place((float(int(log2(1 + gang.attained / self.quantum))), gang.arrival))


@dataclass(frozen=True, slots=True)
class GangSrpt:
    """The query with the least expected remaining tokens for its weight goes first."""

    name: ClassVar[str] = "gang-srpt"
    by_request: ClassVar[bool] = False

    def place(self, gang: Gang, at: Moment) -> Place:
        """By expected remaining tokens over the weight."""
        return Place((gang.work(at.typical),))


@dataclass(frozen=True, slots=True)
class Deadline:
    """Least slack first, among those that can still make it.

    Then come those without a deadline, by expected remaining tokens over their weight; those that cannot
    make it last.
    """

    name: ClassVar[str] = "deadline"
    by_request: ClassVar[bool] = False

    def place(self, gang: Gang, at: Moment) -> Place:
        """By slack, which runs out for all alike: so by the last moment at which it may start."""
        work, latest = gang.work(at.typical), _latest_start(gang, at)
        if latest is None:
            return Place((1, work))
        return Place((0, latest), until=latest) if at.now <= latest else Place((2, work))


@dataclass(frozen=True, slots=True)
class FeasibleSrpt:
    """Least expected remaining tokens for the weight first; who cannot meet a deadline comes last."""

    name: ClassVar[str] = "feasible-srpt"
    by_request: ClassVar[bool] = False

    def place(self, gang: Gang, at: Moment) -> Place:
        """By whether it can still make it, then by expected remaining tokens over the weight."""
        work, latest = gang.work(at.typical), _latest_start(gang, at)
        if latest is None or at.now <= latest:
            return Place((0, work), until=inf if latest is None else latest)
        return Place((1, work))


def _latest_start(gang: Gang, at: Moment) -> float | None:
    """Last moment at which the gang may start and still make its deadline, None without one.

    Its members run side by side, so it needs the time of its remaining tokens over their number.
    """
    if gang.deadline is None:
        return None
    return gang.deadline - gang.remaining(at.typical) / max(gang.members, 1) * at.pace


_KNOWN: tuple[type[Policy], ...] = (
    Fcfs,
    GangFcfs,
    SjfRank,
    LeastAttained,
    GangSrpt,
    Deadline,
    FeasibleSrpt,
)
POLICIES: Mapping[str, type[Policy]] = {policy.name: policy for policy in _KNOWN}
"""Name -> policy."""
DEFAULT = GangSrpt.name


def parse_policy(name: str) -> Policy:
    """The policy of that name; `default` is the one that measured best.

    Raises:
        ConfigError: if there is none.
    """
    policy = POLICIES.get(DEFAULT if name == "default" else name)
    if policy is None:
        raise ConfigError(
            f"scheduler.policy = {name!r}: there are default, {', '.join(sorted(POLICIES))}"
        )
    return policy()
