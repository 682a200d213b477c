"""A ranker that is fitted in a moment on a few hundred prompts: ridge regression on hashed words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from dynasor.ranking.examples import LengthExample
from dynasor.ranking.hashed_ngrams import SIZE, hash_text
from dynasor.ranking.length_calibration import LengthCalibration

Floats = NDArray[np.float64]


class RidgeRanker:
    """Scores are predicted log tokens, less their mean.

    Args:
        prompts: to learn from.
        log_tokens: of each.
        ridge: penalty.

    Attributes:
        held_out: score of each of the prompts by the ranker that was fitted on all others.
    """

    name = "ridge on hashed words"

    def __init__(self, prompts: Sequence[str], log_tokens: ArrayLike, ridge: float = 1.0) -> None:
        self._seen = _rows(prompts)
        target = np.asarray(log_tokens) - np.mean(log_tokens)
        kernel = (self._seen @ self._seen.T).toarray()
        inverse = np.linalg.inv(kernel + ridge * np.eye(len(prompts)))
        self._dual = inverse @ target
        self.held_out = target - self._dual / np.diag(inverse)

    def score(self, prompts: Sequence[str]) -> Floats:
        """See `dynasor.ranking.ranker.Ranker`."""
        return np.asarray((_rows(prompts) @ self._seen.T) @ self._dual)


def calibrated_ridge(examples: Sequence[LengthExample]) -> tuple[RidgeRanker, LengthCalibration]:
    """A ridge ranker, and its calibration by held-out scores."""
    ranker = RidgeRanker([e.prompt for e in examples], [np.log(e.tokens) for e in examples])
    return ranker, LengthCalibration.fit(ranker.held_out, examples)


def _rows(prompts: Sequence[str]) -> csr_matrix:
    hashed = [hash_text(prompt) for prompt in prompts]
    ends = np.cumsum([0, *(len(each.places) for each in hashed)])
    places = np.concatenate([each.places for each in hashed])
    weights = np.concatenate([each.weights for each in hashed])
    return csr_matrix((weights, places, ends), shape=(len(prompts), 2 * SIZE))
