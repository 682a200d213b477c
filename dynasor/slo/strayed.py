"""How far queries stray from the time that is expected of them, by those that were served last.

Queries that still run count as well, for where short work goes first those that have ended are the
easy ones: one that runs has strayed at least as far as it has come (Kaplan and Meier, "Nonparametric
estimation from incomplete observations", 1958). Which queries are looked back on goes by when they came.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REMEMBERED = 200
"""Queries that are looked back on, at least."""
WINDOW = 5.0
"""Longest times that are promised; who came within so many of them is looked back on, too."""
MOST = 4096
EXPERIENCE = 20
"""Ended queries below which it is not known how far they stray; others then take what is expected."""


class Strayed:
    """The last queries of a class.

    Args:
        longest: time that is promised, seconds.
        clock: seconds.
    """

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        self._window = WINDOW * longest
        self._clock = clock
        self._places: dict[Hashable, int] = {}  # of those that run
        self._came = self._first = 0  # queries; the first of them that is looked back on
        self._begun, self._expected, self._seconds = np.zeros((3, MOST))  # query n is at n % MOST
        self._known = np.zeros(MOST, bool)  # of which something can be learned

    def begin(self, query: Hashable, expected: float) -> None:
        """A query begins that is expected to take so many seconds."""
        now, place = self._clock(), self._came % MOST
        self._begun[place], self._expected[place] = now, max(expected, 1e-6)
        self._seconds[place], self._known[place] = np.nan, True
        self._places[query] = self._came
        self._came += 1
        while self._came - self._first > REMEMBERED and (
            self._came - self._first > MOST or self._begun[self._first % MOST] < now - self._window
        ):
            self._first += 1

    def end(self, query: Hashable, seconds: float) -> None:
        """It has taken so long."""
        number = self._places.pop(query, -1)
        if number >= self._first:
            self._seconds[number % MOST] = seconds

    def drop(self, query: Hashable) -> None:
        """Nothing will be learned from it."""
        number = self._places.pop(query, -1)
        if number >= self._first:
            self._known[number % MOST] = False

    def _last(self) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Seconds so far, those expected, and which have ended, of the queries looked back on."""
        places = np.arange(self._first, self._came) % MOST
        places = places[self._known[places]]
        seconds = self._seconds[places]
        ended = ~np.isnan(seconds)
        so_far = np.where(ended, seconds, self._clock() - self._begun[places])
        return so_far, self._expected[places], ended

    @property
    def known(self) -> bool:
        """Whether enough have ended to say how far queries stray."""
        return int(self._last()[2].sum()) >= EXPERIENCE

    def curve(self) -> Curve:
        """How far queries stray, as of now."""
        so_far, expected, ended = self._last()
        times = so_far / expected
        guessed = np.ones(max(0, EXPERIENCE - int(ended.sum())))
        return Curve(np.concatenate([times[ended], guessed]), times[~ended])

    def in_time(self, seconds: float, curve: Curve) -> tuple[float, int]:
        """How many of the queries looked back on took at most so long, or may be expected to; of all."""
        so_far, expected, ended = self._last()
        still = 1 - curve.shares(so_far / expected)
        late = 1 - curve.shares(seconds / expected)
        may = 1 - np.divide(late, still, out=np.ones_like(late), where=still > 0)
        in_time = np.where(ended, 1.0, may) * (so_far <= seconds)
        return float(in_time.sum()), len(in_time)


class Curve:
    """Share of the queries that take at most so many times what is expected of them.

    Args:
        ended: times what was expected, float of shape (ended,).
        running: so far, float of shape (running,).
    """

    def __init__(self, ended: Floats, running: Floats) -> None:
        # Here, for it takes half a second, which a server without promises need not wait for.
        from scipy.stats import CensoredData, ecdf

        known = ecdf(CensoredData(uncensored=ended, right=running)).cdf
        self._times = known.quantiles
        self._shares = np.concatenate([[0.0], known.probabilities])

    def shares(self, times: Floats) -> Floats:
        """That take at most so many times what is expected."""
        return np.asarray(self._shares[np.searchsorted(self._times, times, side="right")])

    def share(self, times: float) -> float:
        """That takes at most so many times what is expected."""
        return float(self.shares(np.array([times]))[0])

    def times(self, share: float) -> float:
        """What such a share of the queries takes at most; the most that was seen if it is not known."""
        place = int(np.searchsorted(self._shares[1:], share, side="left"))
        return float(self._times[min(place, len(self._times) - 1)])
