"""Ridge regression that learns from one example after the other, the last of them above all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.running_line import MEMORY

REFIT = 8
"""Examples after which the weights are solved for anew, which takes a millisecond or two."""


class OnlineRidge:
    """Predicts a number from a vector.

    Args:
        size: of the vectors.
        penalty: on the squares of the weights.
    """

    def __init__(self, size: int, penalty: float = 1.0) -> None:
        self._penalty = penalty
        self._squares = np.zeros((size, size))
        self._products = np.zeros(size)
        self._weights: NDArray[np.float64] = np.zeros(size)
        self._unused = 0

    def learn(self, vector: NDArray[np.float32], value: float) -> None:
        """One example: a vector, (size,), and the number that came of it."""
        row = vector.astype(np.float64)
        self._squares *= 1 - 1 / MEMORY
        self._squares += np.outer(row, row)
        self._products *= 1 - 1 / MEMORY
        self._products += value * row
        self._unused += 1
        if self._unused >= REFIT:
            self._unused = 0
            penalised = self._squares + self._penalty * np.eye(len(row))
            self._weights = np.asarray(np.linalg.solve(penalised, self._products), np.float64)

    def predict(self, vector: NDArray[np.float32]) -> float:
        """The number that is expected of a vector; 0 before anything was learnt."""
        return float(vector @ self._weights)
