"""How far the samples that a query takes are foreseen from its prompt, learnt while queries end.

Problems of some kinds are agreed upon later than others, whatever their lengths. A ridge regression goes
from the vector of a prompt to the logarithm of the samples its query took, as a multiple of what is
usual. Each query is foreseen when it comes, before it teaches, so lines from what was foreseen to what
came say honestly how far to trust it. There is a line for each doubling of the finished samples, one or
more, for votes tell more and more of the same. Slopes are drawn towards 0 by their own uncertainty, as
in the positive-part estimator of James and Stein (1961): where prompts say nothing, nothing changes.
"""

from __future__ import annotations

from math import exp

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.online_ridge import OnlineRidge
from dynasor.ranking.prompt_vector import VECTOR_SIZE
from dynasor.ranking.running_line import RunningLine

_FEWEST = 20  # queries that a slope takes
_CAUTION = 4.0  # squared standard errors by which slopes are drawn in, as a share of the slope
_FURTHEST = 2.0  # logarithm of the largest multiple; prompts may look like no other


class SamplesByPrompt:
    """See the module."""

    def __init__(self) -> None:
        self._ridge = OnlineRidge(VECTOR_SIZE)
        self._lines: dict[int, RunningLine] = {}

    def foresee(self, prompt: NDArray[np.float32]) -> float:
        """The logarithm of the samples of a query that has come, over the usual.

        Args:
            prompt: see `dynasor.ranking.prompt_vector`.
        """
        return self._ridge.predict(prompt)

    def multiple(self, foreseen: float, finished: int) -> float:
        """By how much to multiply the samples that queries with such votes take yet.

        Args:
            foreseen: when the query came.
            finished: samples of it since then, 1 or more.
        """
        line = self._lines.get(finished.bit_length())
        if line is None:
            return 1.0
        shift = slope_of(line) * (foreseen - line.x)
        return exp(min(max(shift, -_FURTHEST), _FURTHEST))

    def learn_query(self, prompt: NDArray[np.float32], ratio: float) -> None:
        """A query has ended: the logarithm of its samples over the usual."""
        self._ridge.learn(prompt, ratio)

    def learn_rest(self, foreseen: float, finished: int, ratio: float) -> None:
        """It took, after so many samples, the exponential of `ratio` times what its votes had said."""
        line = self._lines.setdefault(finished.bit_length(), RunningLine())
        line.learn(foreseen, ratio)


def slope_of(line: RunningLine) -> float:
    """How far to follow a line, 0 to its slope; 0 where the slope may well be none."""
    if line.count < _FEWEST or line.both <= 0:
        return 0.0
    slope = line.both / line.x_var
    error = line.left(slope) / (line.count * line.x_var)  # squared
    return max(0.0, slope - _CAUTION * error / slope)
