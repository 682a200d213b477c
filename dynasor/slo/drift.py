"""Whether live queries are still like those of the calibration: a test that never stops looking.

Each ended query is compared with the calibrated ones and with the live ones before it, trait by trait.
Its rank among them, ties broken at random, is a p-value; while all of them are exchangeable these
p-values are independent and uniform, and a martingale that bets against that can hardly grow (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, second edition, 2022, chapters 8 and 9).
By Ville's inequality it ever reaches 1/a with probability a at most, however often one looks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import log
from typing import NamedTuple

import numpy as np

from dynasor.slo.traits import Traits

WAKE = (1 / 4, 1 / 500)
"""Share of the sleeping capital that is staked after each query on a drift that begins there: half of
the capital wakes up soon, for live queries that are others from the first on, half of it bit by bit."""
GRID = 10
"""Steps of the betting functions: thresholds and shares of p-values below them, in tenths."""


class Alarm(NamedTuple):
    """What a watch has found.

    Attributes:
        trait: that has changed.
        queries: live ones since the watch (or its present period) began.
    """

    trait: str
    queries: int


class Begun(NamedTuple):
    """A period that is under way: all that another watch needs to go on with it.

    Attributes:
        live: trait by trait, the values of the live queries so far.
        capital: natural logarithm of what the bettors on each trait have together.
    """

    live: tuple[tuple[float, ...], ...]
    capital: tuple[float, ...]


class DriftWatch:
    """Watches the traits of live queries, in periods.

    While live queries are exchangeable with the calibrated ones, a period raises an alarm with
    probability `risk` at most; the risk is split evenly over the traits (Bonferroni), for the same
    queries give all of them. A new period forgets the live queries of the last one, which bounds memory
    and keeps the watch awake. An alarm stays until there is a new watch.

    Args:
        reference: traits of the calibrated queries.
        risk: of a false alarm in a period.
        period: live queries of a period.
        seed: of the ties.

    Raises:
        ValueError: if there is nothing to compare with, or a number is out of its range.
    """

    def __init__(
        self, reference: Sequence[Traits], *, risk: float, period: int, seed: int | None = None
    ) -> None:
        if not reference:
            raise ValueError("there are no calibrated queries to compare with")
        if not 0 < risk < 1 or period < 1:
            raise ValueError(f"risk = {risk} must be between 0 and 1, period = {period} above 0")
        self._columns = [sorted(column) for column in zip(*reference, strict=True)]
        self._period = period
        self._random = np.random.default_rng(seed)
        self._limit = log(len(Traits._fields) / risk)
        self.alarm: Alarm | None = None
        self._begin()

    def _begin(self) -> None:
        self.seen = 0
        """Live queries of this period."""
        self._watches = [_TraitWatch(column) for column in self._columns]

    def see(self, live: Traits) -> Alarm | None:
        """Compare one more ended query; the alarm if it is this one that raises it."""
        if self.alarm is not None:
            return None
        if self.seen == self._period:
            self._begin()
        self.seen += 1
        for name, watch, value in zip(Traits._fields, self._watches, live, strict=True):
            watch.see(value, float(self._random.random()))
            if self.alarm is None and watch.evidence >= self._limit:
                self.alarm = Alarm(name, self.seen)
        return self.alarm

    def begun(self) -> Begun:
        """The period that is under way."""
        return Begun(
            tuple(tuple(watch.live) for watch in self._watches),
            tuple(watch.evidence for watch in self._watches),
        )

    def go_on(self, begun: Begun) -> None:
        """Go on with a period of another watch over the same reference.

        Its bettors put what they have won to sleep again, which they may do at any time: what grows from
        there on is still a fair game.

        Raises:
            ValueError: if it is no period of such a watch.
        """
        lengths = {len(values) for values in begun.live}
        if not len(begun.live) == len(begun.capital) == len(self._watches) or len(lengths) != 1:
            raise ValueError("a period has as many live values of each trait")
        self.seen = lengths.pop()
        self._watches = [
            _TraitWatch(column, live, capital)
            for column, live, capital in zip(self._columns, begun.live, begun.capital, strict=True)
        ]

    @property
    def evidence(self) -> dict[str, float]:
        """Evidence of drift by trait, as a share of what raises the alarm on a logarithmic scale."""
        return {
            name: max(0.0, watch.evidence / self._limit)
            for name, watch in zip(Traits._fields, self._watches, strict=True)
        }


class _TraitWatch:
    """One trait: the values so far, and what a bettor has made of their ranks.

    Args:
        reference: of the calibrated queries.
        live: of the live ones so far.
        capital: that the bettor begins with, its natural logarithm.
    """

    def __init__(
        self, reference: Sequence[float], live: Sequence[float] = (), capital: float = 0.0
    ) -> None:
        # Here, for it brings pandas along, which a server without a calibration need not wait for.
        from online_cp.martingale import SleeperStayer

        self.live = list(live)
        self._values = sorted([*reference, *live])
        self._capital = capital
        self._bettors = [SleeperStayer(R=share, G=GRID, store_p_values=False) for share in WAKE]

    def see(self, value: float, tie: float) -> None:
        """Bet on the rank of a live value; `tie`, uniform on [0, 1), breaks ties.

        Live values join the calibrated ones: ranks among the calibrated alone would depend on each
        other through them, and the bettor would in time win by that alone.
        """
        below, up_to = bisect_left(self._values, value), bisect_right(self._values, value)
        above, same = len(self._values) - up_to, up_to - below + 1
        rank = (above + tie * same) / (len(self._values) + 1)
        for bettor in self._bettors:
            bettor.update(rank)
        insort(self._values, value)
        self.live.append(value)

    @property
    def evidence(self) -> float:
        """Natural logarithm of the capital, of which each bettor began with an equal share."""
        grown = [bettor.logM for bettor in self._bettors]
        return self._capital + float(np.logaddexp.reduce(grown)) - log(len(grown))
