"""A ranker for front ends without a GPU: a linear model of hashed words, and trees on top of it.

The linear models see words and pieces of words; the trees (LightGBM) see what they say and what can be
counted in a prompt. No neural network, a few hundred microseconds a prompt, and files without pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from dynasor.errors import DataError, MissingExtra
from dynasor.ranking.cheap_features import FEATURES, prompt_features
from dynasor.ranking.hashed_ngrams import SIZE, Hashed, hash_question
from dynasor.ranking.model_folder import read_card

if TYPE_CHECKING:
    import lightgbm

LINEAR_FILE = "words.npy"
TREES_FILE = "trees.txt"


class CheapRanker:
    """Scores are predicted quantiles of length, about 0 to 1; an empty prompt has that of any prompt."""

    def __init__(self, linear: NDArray[np.float16], trees: lightgbm.Booster, name: str) -> None:
        """Weights of the linear models, (2 * SIZE,), and the trees over what they say."""
        self.name = name
        self._linear = linear
        self._trees = trees

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """See `Ranker.score`."""
        if not prompts:
            return np.empty(0)
        rows = np.stack([self._row(prompt) for prompt in prompts])
        scores = np.asarray(self._trees.predict(rows, num_threads=1), np.float64)
        return np.where([bool(prompt.strip()) for prompt in prompts], scores, NEUTRAL)

    def _row(self, prompt: str) -> NDArray[np.float64]:
        return tree_features(prompt, linear_scores(hash_question(prompt), self._linear))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `train_cheap` wrote.

        Raises:
            DataError: if a file is missing or wrong.
            MissingExtra: if LightGBM is not there.
        """
        booster = import_lightgbm().Booster
        name = read_card(folder)["name"]
        try:
            linear = np.load(folder / LINEAR_FILE, allow_pickle=False)
            trees = booster(model_str=(folder / TREES_FILE).read_text(encoding="utf-8"))
        except Exception as error:  # LightGBM's own error is an Exception
            raise DataError(f"{folder}: cannot be read ({error}); train the ranker again") from None
        if linear.shape != (2 * SIZE,) or trees.num_feature() != len(FEATURES) + LINEAR_SCORES:
            raise DataError(f"{folder}: was made for other features; train the ranker again")
        return cls(linear, trees, name)


NEUTRAL = 0.5
"""The score of an empty prompt."""
LINEAR_SCORES = 3
"""What the linear models say: of words, of pieces of words, and both together."""


def linear_scores(text: Hashed, linear: NDArray[np.float16]) -> tuple[float, float]:
    """What words say, and what pieces of words say."""
    border = int(np.searchsorted(text.places, SIZE))
    values = linear[text.places].astype(np.float32) * text.weights
    return float(values[:border].sum()), float(values[border:].sum())


def tree_features(prompt: str, linear: tuple[float, float]) -> NDArray[np.float64]:
    """What the trees see of a prompt; (len(FEATURES) + LINEAR_SCORES,) float64."""
    return np.concatenate([prompt_features(prompt), linear, [sum(linear)]])


def import_lightgbm() -> Any:
    """LightGBM.

    Raises:
        MissingExtra: if it is not there.
    """
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra(
            "the cheap ranker needs LightGBM: pip install 'dynasor-llm[rank]'"
        ) from None
    return lightgbm
