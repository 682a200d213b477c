"""A straight line through pairs of numbers as they come, the last of them above all."""

from __future__ import annotations

MEMORY = 500
"""What is learnt while an engine runs looks back on so many pairs, queries or examples."""


class RunningLine:
    """Moments of x and y, from which a slope can be had.

    Attributes:
        count: pairs so far, `MEMORY` at most.
        x, y: means.
        x_var, y_var, both: variances and covariance.
    """

    def __init__(self) -> None:
        self.count = 0
        self.x = self.y = 0.0
        self.x_var = self.y_var = self.both = 0.0

    def learn(self, x: float, y: float) -> None:
        """One more pair."""
        self.count = min(self.count + 1, MEMORY)
        share = 1 / self.count
        x_away, y_away = x - self.x, y - self.y
        self.x += share * x_away
        self.y += share * y_away
        self.x_var = (1 - share) * (self.x_var + share * x_away**2)
        self.y_var = (1 - share) * (self.y_var + share * y_away**2)
        self.both = (1 - share) * (self.both + share * x_away * y_away)

    def left(self, slope: float) -> float:
        """The variance of y that a line of such a slope leaves unexplained."""
        return max(self.y_var - 2 * slope * self.both + slope**2 * self.x_var, 0.0)
