"""Ridge regression on what prompts look like to three kernels.

One is of hidden states, and falls with their squared distance; one is of hashed words and pieces of
words; one is of sizes and shapes. Learning from a few hundred prompts takes a moment, and the value that
each of them would have had, had it been left out, comes with it in closed form (Rasmussen and Williams,
Gaussian Processes for Machine Learning, section 5.4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dynasor.ranking.hashed_ngrams import SIZE, hash_question
from dynasor.ranking.prompt_shape import prompt_shape

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

RIDGE = 0.3
"""Penalty, as a share of the kernels' mean diagonal."""
SHARES = {"states": 0.65, "words": 0.2, "shape": 0.15}
"""Of the kernels in the sum; each has a mean diagonal of 1 on what was learned from."""
NARROW = 1.5
"""Of the states' kernel: exp(-NARROW * squared distance / its median)."""


class Looks(NamedTuple):
    """What prompts look like: a row each.

    Attributes:
        states: (prompts, features) float16 hidden states.
        words: (prompts, 2 * SIZE) sparse float32 words and pieces of words.
        shape: (prompts, SHAPE_SIZE) float32.
    """

    states: NDArray[np.float16]
    words: csr_matrix
    shape: Singles


def looks_of(prompts: Sequence[str], states: NDArray[np.float16]) -> Looks:
    """What prompts look like, given their hidden states."""
    hashed = [hash_question(prompt) for prompt in prompts]
    ends = np.cumsum([0, *(len(each.places) for each in hashed)])
    places = np.concatenate([each.places for each in hashed])
    weights = np.concatenate([each.weights for each in hashed])
    words = csr_matrix((weights, places, ends), shape=(len(prompts), 2 * SIZE))
    return Looks(states, words, np.array([prompt_shape(each) for each in prompts], np.float32))


class KernelRidge:
    """A fitted regression.

    Args:
        seen: what was learned from.
        dual: (prompts,) their weights.
        scales: median squared distance of states, and mean diagonals of the other two kernels.
    """

    def __init__(self, seen: Looks, dual: Floats, scales: Floats) -> None:
        self._seen, self._dual, self._scales = seen, dual, scales
        self._standards = [_standard(each) for each in (seen.states, seen.shape)]
        self._states, self._shape = self._standardised(seen)
        self._lengths = _squares(self._states)

    @classmethod
    def fit(cls, seen: Looks, values: Floats) -> tuple[Self, Floats]:
        """A regression to values, and the values of its prompts had each been left out.

        Args:
            seen: two prompts or more.
            values: (prompts,), of mean about 0.
        """
        one = cls(seen, np.zeros(len(values)), np.ones(3))
        far = one._distances(one._states)
        apart = far[far > 1e-6 * far.max()]  # rows that are equal differ by rounding
        one._scales = np.array(
            [
                np.median(apart) if len(apart) else 1.0,
                max(_mean_square(seen.words), 1e-9),
                max(float((one._shape**2).sum(1).mean()), 1e-9),
            ]
        )
        inverse = np.linalg.inv(one._likeness(seen) + RIDGE * np.eye(len(values)))
        one._dual = inverse @ values
        return one, np.asarray(values - one._dual / np.diag(inverse))

    def predict(self, asked: Looks) -> Floats:
        """(prompts,) values."""
        return np.asarray(self._likeness(asked) @ self._dual)

    def _likeness(self, asked: Looks) -> Floats:
        """(asked, seen) kernel."""
        states, shape = self._standardised(asked)
        distance, words, square = self._scales
        near = np.exp(-NARROW / distance * self._distances(states))
        total = SHARES["states"] * near
        total += SHARES["words"] / words * (asked.words @ self._seen.words.T).toarray()
        total += SHARES["shape"] / square * (shape @ self._shape.T)
        return np.asarray(total)

    def _distances(self, states: Singles) -> Floats:
        """(asked, seen) squared, by one product, which is much quicker than pair by pair."""
        product = (states @ self._states.T).astype(np.float64)
        return np.asarray(np.maximum(_squares(states)[:, None] + self._lengths - 2 * product, 0.0))

    def _standardised(self, asked: Looks) -> tuple[Singles, Singles]:
        (middle, scale), (shape_middle, shape_scale) = self._standards
        return (asked.states - middle) / scale, (asked.shape - shape_middle) / shape_scale

    def save(self, file: Path) -> None:
        """Write it as arrays of NumPy."""
        words = self._seen.words
        with file.open("wb") as out:
            np.savez(
                out,
                allow_pickle=False,
                states=self._seen.states,
                shape=self._seen.shape,
                weights=words.data,
                places=words.indices,
                ends=words.indptr,
                dual=self._dual,
                scales=self._scales,
            )

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            OSError, ValueError, KeyError: if it cannot be read, or is something else.
        """
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        count = len(arrays["dual"])
        words = csr_matrix(
            (arrays["weights"], arrays["places"], arrays["ends"]), shape=(count, 2 * SIZE)
        )
        seen = Looks(arrays["states"], words, arrays["shape"])
        fits = len(seen.states) == len(seen.shape) == count and arrays["scales"].shape == (3,)
        numbers = (seen.states, seen.shape, words.data, arrays["dual"], arrays["scales"])
        if not fits or not all(np.isfinite(each).all() for each in numbers):
            raise ValueError("its arrays do not fit, or are no numbers")
        return cls(seen, arrays["dual"], arrays["scales"])


def _standard(rows: NDArray[np.floating]) -> tuple[Singles, Singles]:
    middle = rows.mean(axis=0, dtype=np.float64)
    scale = rows.std(axis=0, dtype=np.float64) + 1e-6
    return middle.astype(np.float32), scale.astype(np.float32)


def _squares(rows: Singles) -> Floats:
    """Squared lengths of the rows."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _mean_square(rows: csr_matrix) -> float:
    """Mean of the squared lengths of the rows."""
    return float(rows.power(2).sum()) / float(rows.shape[0])
