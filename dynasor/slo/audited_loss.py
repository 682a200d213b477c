"""The real loss, from a few audited queries, with a bound that holds however often one looks.

An audited query goes on to the full budget after it was answered, and one sees whether the answer would
have been another one. The share m of answers that differ lies between the two bounds at all times at
once with probability 1 - risk: those m are left out for which

    B(a + d, b + s) / B(a, b) / (m^d (1 - m)^s) >= 1 / risk    (d differ, s are the same)

The left side is the likelihood of what was seen under a Beta mixture over its likelihood under m, a
martingale that starts at 1 if m is the truth (Robbins, "Statistical methods related to the law of the
iterated logarithm", 1970; Ville's inequality).

Audited queries may have been served under several settings, each with a share of its own. Then the lower
bound lies below the largest of these shares, and the upper one above the smallest, as surely: both only
rise with each answer that differs in the place of one that is the same, and had all settings the largest
share, no fewer would differ.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

PRIOR = (0.5, 0.5)
"""a and b of the mixture: Jeffreys' prior, which puts weight on small losses."""
TINY = 1e-12


class Bounds(NamedTuple):
    """Between which the share of answers that differ lies."""

    low: float
    high: float


class AuditedLoss:
    """Counts audits of the settings between which a class moves.

    Audits that were dropped (under overload, or for a failure) are held against no conclusion: they
    count as answers that are the same for the lower bound and as different for the upper one.

    Args:
        risk: that the truth is ever outside of the bounds.

    Raises:
        ValueError: if the risk is no probability.
    """

    def __init__(self, *, risk: float) -> None:
        if not 0 < risk < 1:
            raise ValueError(f"risk must be between 0 and 1, not {risk}")
        self._limit = -log(risk)
        self.differed = 0
        self.same = 0
        self.dropped = 0

    def count(self, *, differed: bool) -> None:
        """One audit has ended."""
        if differed:
            self.differed += 1
        else:
            self.same += 1

    def drop(self) -> None:
        """One audit was begun and will not end."""
        self.dropped += 1

    def go_on(self, *, differed: int, same: int, dropped: int) -> None:
        """Count audits of before."""
        self.differed += differed
        self.same += same
        self.dropped += dropped

    @property
    def share(self) -> float | None:
        """Share of the ended audits whose answer differed; None before the first."""
        ended = self.differed + self.same
        return self.differed / ended if ended else None

    @property
    def bounds(self) -> Bounds:
        """Of the true share; 0 and 1 where nothing is known."""
        return Bounds(
            self._bound(self.differed, self.same + self.dropped, lower=True),
            self._bound(self.differed + self.dropped, self.same, lower=False),
        )

    def exceeds(self, limit: float) -> bool:
        """Whether the true share is above `limit`, at the stated risk."""
        same = self.same + self.dropped
        seen = self.differed + same
        return self.differed > limit * seen and self._against(limit, self.differed, same) >= 0

    def _bound(self, differed: int, same: int, *, lower: bool) -> float:
        seen = differed + same
        best = differed / seen if seen else 0.5
        end = TINY if lower else 1 - TINY
        if self._against(end, differed, same) < 0:
            return 0.0 if lower else 1.0  # not even the end of the range is left out
        return float(brentq(self._against, end, min(max(best, TINY), 1 - TINY), (differed, same)))

    def _against(self, share: float, differed: int, same: int) -> float:
        """Logarithm of the evidence against a share, above what leaves it out."""
        a, b = PRIOR
        mixture = betaln(a + differed, b + same) - betaln(a, b)
        likelihood = xlogy(differed, share) + xlog1py(same, -share)
        return float(mixture - likelihood - self._limit)
