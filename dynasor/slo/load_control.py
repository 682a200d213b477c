"""Keeping latency promises under overload: bolder certified settings first, then early refusals.

How long a query that comes now will take is the work inside and its own, over the pace at which work
leaves (Little, "A proof for the queuing formula L = lambda W", 1961, with queries weighed by their
work). How far single queries stray from that is learned from the last ones, see `strayed.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import NamedTuple

from dynasor.slo.strayed import Curve, Strayed

HALF_LIFE = 60.0
"""Seconds at a level of load after which what was learned there counts half."""
LEARNED = 3
"""Queries that must have ended at a level of load before its pace is known."""
TRADE = 0.5
"""Share of the allowed time from which on bolder rungs serve."""
KINDS = 256
"""Kinds of queries whose work is remembered; clients may bring any rule."""
FIRST_GUESS = 1000.0
"""Work of a query where none has ended, tokens. Only its proportion to that of others matters."""
DEADLINE_SHARE = 0.99
"""Share of the queries that are to end by their rule before the deadline of their class."""


class Pace:
    """How much work leaves a second, by the queries inside; all that are served share it.

    The pace grows with the queries inside, for they are batched, so each doubling of their number has a
    pace of its own. One at which the server has not been yet is taken to grow in proportion, which is
    the most that batching can give: nobody is refused for want of experience.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._then = clock()
        self.inside = 0
        self.work = 0.0
        """Of the queries inside, from their beginning to their end; tokens."""
        self._levels: dict[int, _Level] = {}
        self._kinds: OrderedDict[str, float] = OrderedDict()

    def expected(self, kind: str) -> float:
        """Work of a query of such a kind, tokens, by those that have ended."""
        known = self._kinds.get(kind)
        if known is not None:
            return known
        return sum(self._kinds.values()) / len(self._kinds) if self._kinds else FIRST_GUESS

    def learn(self, kind: str, tokens: float) -> None:
        """A query of such a kind has ended and cost so many tokens."""
        before = self._kinds.pop(kind, tokens)
        self._kinds[kind] = before + 0.1 * (tokens - before)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)

    def enter(self, work: float) -> None:
        """A query begins."""
        self._pass()
        self.inside += 1
        self.work += work

    def leave(self, work: float, *, ended: bool) -> None:
        """A query ends, or its client left and nothing can be learned from it."""
        level = self._pass()
        if ended:
            level.work += work
            level.ended += 1
        self.inside -= 1
        self.work = self.work - work if self.inside else 0.0

    def seconds(self, work: float) -> float | None:
        """How long a query of so much work would take from now; None while that is not known."""
        pace = self._at(self.inside + 1)
        return None if pace is None else (self.work + work) / pace

    def alone(self, work: float) -> float | None:
        """How long it would take if it were alone."""
        pace = self._at(1)
        return None if pace is None else work / pace

    def _pass(self) -> _Level:
        """Count the time since the last change for the level of load that it was spent at."""
        now = self.clock()
        level = self._levels.setdefault(self.inside.bit_length(), _Level())
        if self.inside:
            level.spend(now - self._then)
        self._then = now
        return level

    def _at(self, inside: int) -> float | None:
        wanted = inside.bit_length()
        known = [at for at, level in self._levels.items() if level.ended >= LEARNED and at]
        if not known:
            return None
        nearest = min(known, key=lambda at: (abs(at - wanted), at))
        pace = self._levels[nearest].pace
        return pace * 2.0 ** (wanted - nearest)


class _Level:
    """What was seen while the number of queries inside had so many binary digits."""

    def __init__(self) -> None:
        self.work = 0.0
        self.ended = 0
        self._seconds = 0.0

    def spend(self, seconds: float) -> None:
        """Time passes."""
        kept = 0.5 ** (seconds / HALF_LIFE)
        self.work *= kept
        self._seconds = self._seconds * kept + seconds

    @property
    def pace(self) -> float:
        """Work a second."""
        return self.work / max(self._seconds, 1e-6)


class Target(NamedTuple):
    """A share of the queries that is to be answered within so many seconds."""

    share: float
    seconds: float


class Choice(NamedTuple):
    """What is done about a query that comes.

    Attributes:
        level: index of its setting on the ladder.
        predicted: seconds that it is expected to take; None while that is not known.
        wait: seconds after which to come again, where it is refused; None where it is served.
    """

    level: int
    predicted: float | None
    wait: float | None = None


class LoadControl:
    """Chooses a rung of the ladder for each query of one class.

    The allowed time is that which a query may be expected to take so that the promised share of such
    queries is in time. Up to `TRADE` of it the first rung serves; from there to all of it the bolder
    ones take over in even steps. (Were the first rung kept to the end, the server would be full of
    queries that are served carefully, and others would be refused for them.) Each rung gives up samples
    of the queries that are the most certain before those of others.

    Beyond the allowed time a query is refused if with it the promised share of the last queries would
    not be in time any more: a promise is about a share of all, so one that may be late is served as
    long as the others leave room for it. None is refused when the server is empty or could not keep the
    promise even then, for waiting would not help, or has not yet seen how far such queries stray from
    what is expected of them.

    Args:
        works: expected work of a query on each rung, tokens; less from rung to rung. None: that of its
            `kind`, as far as it is known.
        targets: that were promised; none: always the first rung, and nobody is refused.
        pace: of the server.
        kind: of the class's queries.
    """

    def __init__(
        self, works: Sequence[float | None], targets: Sequence[Target], pace: Pace, kind: str
    ) -> None:
        self._works = works
        self._kind = kind
        self._targets = targets
        self._pace = pace
        self._strayed = Strayed(max((each.seconds for each in targets), default=0.0), pace.clock)

    def choose(self) -> Choice:
        """For a query that comes now."""
        first = self.first()
        if first.predicted is None or not self._targets:
            return first
        curve = self._strayed.curve()
        slow = {target: max(curve.times(target.share), 1e-6) for target in self._targets}
        allowed = min(target.seconds / slow[target] for target in self._targets)
        level = self._level(first.predicted / allowed)
        work = self.work(level)
        predicted, alone = self._pace.seconds(work), self._pace.alone(work)
        assert predicted is not None
        assert alone is not None
        if predicted <= allowed or not self._pace.inside or alone > allowed:
            return Choice(level, predicted)
        if not self._strayed.known or self._kept_with(predicted, curve):
            return Choice(level, predicted)
        return Choice(level, predicted, wait=predicted - allowed)

    def _kept_with(self, predicted: float, curve: Curve) -> bool:
        """Whether the last queries and one that takes so long are expected to keep all targets."""
        for target in self._targets:
            in_time, of = self._strayed.in_time(target.seconds, curve)
            if in_time + curve.share(target.seconds / predicted) < target.share * (of + 1):
                return False
        return True

    def _level(self, used: float) -> int:
        """The rung when so much of the allowed time is expected to be used."""
        boldest = len(self._works) - 1
        if used < TRADE:
            return 0
        return min(boldest, 1 + int(boldest * (used - TRADE) / (1 - TRADE)))

    def first(self) -> Choice:
        """The first rung, whatever the load."""
        return Choice(0, self._pace.seconds(self.work(0)))

    def work(self, level: int) -> float:
        """Expected of a query on a rung, tokens."""
        known = self._works[level]
        return self._pace.expected(self._kind) if known is None else known

    def begun(self, query: Hashable, predicted: float | None) -> None:
        """A query begins that is expected to take so many seconds."""
        if predicted is not None:
            self._strayed.begin(query, predicted)

    def ended(self, query: Hashable, seconds: float) -> None:
        """It has taken so long."""
        self._strayed.end(query, seconds)

    def left(self, query: Hashable) -> None:
        """It has no answer, and nothing can be learned from it."""
        self._strayed.drop(query)

    def attained(self, level: int) -> float:
        """Share of the queries that came now on that rung and would meet the hardest target in time.

        1 while nothing is known. The hardest target is the one with the largest share.
        """
        predicted = self._pace.seconds(self.work(level))
        if predicted is None or not self._targets:
            return 1.0
        return self._strayed.curve().share(max(self._targets).seconds / predicted)
