"""What is believed of a query's lengths before it has samples, and how queries that ended teach it."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite, log, sqrt

from dynasor.ranking.running_line import MEMORY, RunningLine

_FIRST = 20.0  # weight of the first guess of deviations, in queries
_SLOPE = 5.0  # of a rank's slope, in queries times variance of log tokens
_CENTRE = 2.0  # of the centre as a whole, in queries
_LEAST_SPREAD = 0.02  # samples of one length say no more than that
_FEWEST = 3  # samples whose deviation says something


@dataclass(frozen=True, slots=True)
class LengthPrior:
    """What is believed of a query's lengths before any sample; in natural logarithms of tokens.

    Attributes:
        centre: expected.
        centre_sd: how far queries differ from that.
        spread: typical standard deviation of samples around their query's centre.
        spread_sd: standard deviation of the logarithm of that.
    """

    centre: float
    centre_sd: float = 0.75
    spread: float = 0.25
    spread_sd: float = 0.5

    def __post_init__(self) -> None:
        values = (self.centre, self.centre_sd, self.spread, self.spread_sd)
        if not all(isfinite(value) for value in values) or min(values[1:]) <= 0:
            raise ValueError(f"a prior must be finite, and its deviations above 0: {self}")


class PriorLearner:
    """Sets priors right by queries that have ended (empirical Bayes, by moments).

    A line from what priors said to what came: its slope falls towards 0 where ranks say nothing of this
    model, and what the line leaves unexplained is the deviation of the centre. Samples around their
    query's centre give the spread. First guesses weigh as much as some queries.
    """

    def __init__(self) -> None:
        self._line = RunningLine()  # from the centres that priors said to those that came
        self._spreads = 0
        self._log_spread = 0.0  # mean, over queries of some samples

    def learn(self, prior: LengthPrior, samples: int, mean: float, squares: float) -> None:
        """A query has ended.

        Args:
            prior: as it was given, not as it was set right.
            samples: that finished by themselves, 1 or more.
            mean: of their log tokens.
            squares: sum of the squared deviations from that.
        """
        self._line.learn(prior.centre, mean)
        if samples >= _FEWEST:
            self._spreads = min(self._spreads + 1, MEMORY)
            deviation = log(max(sqrt(squares / (samples - 1)), _LEAST_SPREAD))
            self._log_spread += (deviation - self._log_spread) / self._spreads

    def set_right(self, prior: LengthPrior) -> LengthPrior:
        """The prior after all that was learnt."""
        line, n = self._line, self._line.count
        if not n:
            return prior
        slope = (n * line.both + _SLOPE) / (n * line.x_var + _SLOPE)
        middle = (n * line.y + _CENTRE * line.x) / (n + _CENTRE)
        weight = self._spreads / (self._spreads + _FIRST)
        return LengthPrior(
            middle + slope * (prior.centre - line.x),
            sqrt((n * line.left(slope) + _FIRST * prior.centre_sd**2) / (n + _FIRST)),
            exp((1 - weight) * log(prior.spread) + weight * self._log_spread),
            prior.spread_sd,
        )
