"""Training of the cheap ranker: linear models on hashed words, and trees on what they say, stacked.

The trees must see of each example what a linear model says that has not learned from it, so the examples
are split in folds by conversation and each fold is scored by the models of the others (Wolpert, 1992).
Both learn the quantile of a length, which keeps the order and has no long tail.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import lsqr

from dynasor.errors import DataError
from dynasor.ranking.cheap_features import prompt_features
from dynasor.ranking.cheap_ranker import (
    LINEAR_FILE,
    LINEAR_SCORES,
    TREES_FILE,
    CheapRanker,
    import_lightgbm,
)
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.hashed_ngrams import SIZE, hash_question
from dynasor.ranking.length_calibration import CALIBRATION, LengthCalibration
from dynasor.ranking.length_quantiles import length_quantiles
from dynasor.ranking.metrics import Floats, checked_tokens, kendall_tau
from dynasor.ranking.model_folder import write_card


@dataclass(frozen=True, slots=True)
class CheapSettings:
    """How the cheap ranker is trained.

    Attributes:
        later_weight: of an answer later in a conversation; a first one has 1.
        ridge: penalty on the weights of words.
        ridge_pieces: penalty on the weights of pieces of words.
        folds: of the stacking.
        rounds: most trees; fewer if tau on validation examples stops rising.
        patience: trees without a rise.
        learning_rate, leaves, least_examples: of the trees.
        seed: of the trees' random choices.
    """

    later_weight: float = 0.5
    ridge: float = 1.0
    ridge_pieces: float = 1.0
    folds: int = 5
    rounds: int = 800
    patience: int = 100
    learning_rate: float = 0.03
    leaves: int = 15
    least_examples: int = 40
    seed: int = 0


class Seen(NamedTuple):
    """What the models see of n examples.

    Attributes:
        features: (n, len(FEATURES)) float64.
        words: (n, 2 * SIZE) sparse float32.
        tokens, cut, weights, folds: (n,) length, whether it is a bound, weight, and a number by
            conversation.
    """

    features: Floats
    words: Any
    tokens: Floats
    cut: NDArray[np.bool_]
    weights: Floats
    folds: NDArray[np.int64]


class Trained(NamedTuple):
    """What was learned.

    Attributes:
        linear: (2 * SIZE,) float16.
        trees: a LightGBM booster.
        curve: Kendall's tau on validation examples after each tree.
    """

    linear: NDArray[np.float16]
    trees: Any
    curve: list[float]


def train_cheap(
    train: Seen,
    validation: Seen,
    settings: CheapSettings,
    progress: Callable[[str], None] = lambda stage: None,
) -> Trained:
    """Fit linear models and trees.

    Args:
        train, validation: see `look_at`; from different conversations.
        settings: how.
        progress: told the stage that begins.

    Raises:
        DataError: if there is no order to learn.
        MissingExtra: if LightGBM is not there.
    """
    lightgbm = import_lightgbm()
    checked_tokens(train.tokens)
    checked_tokens(validation.tokens)
    target = length_quantiles(train.tokens, train.cut)
    said = np.zeros((len(target), LINEAR_SCORES))
    for fold in range(settings.folds):
        progress(f"linear models, fold {fold + 1} of {settings.folds}")
        inside = train.folds % settings.folds == fold
        if inside.all() or not inside.any():
            raise DataError(f"train: too few conversations for {settings.folds} folds")
        linear = _fit_linear(
            train.words[~inside], target[~inside], train.weights[~inside], settings
        )
        said[inside] = _say(train.words[inside], linear)
    progress("linear models, all examples")
    linear = _fit_linear(train.words, target, train.weights, settings)
    progress("trees")
    curve: dict[str, Any] = {}
    trees = lightgbm.train(
        {
            "objective": "regression",
            "metric": "None",
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": min(settings.least_examples, max(1, len(target) // 20)),
            "feature_fraction": 0.4,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "seed": settings.seed,
            "num_threads": 1,  # more spin for each other on a busy machine, for little gain
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        },
        lightgbm.Dataset(np.column_stack([train.features, said]), target, weight=train.weights),
        num_boost_round=settings.rounds,
        valid_sets=[
            lightgbm.Dataset(
                np.column_stack([validation.features, _say(validation.words, linear)]),
                validation.tokens,
                weight=validation.weights,
            )
        ],
        feval=lambda scores, data: ("tau", _tau(scores, validation), True),
        callbacks=[
            lightgbm.record_evaluation(curve),
            lightgbm.early_stopping(settings.patience, verbose=False),
        ],
    )
    return Trained(linear, trees, curve["valid_0"]["tau"])


def look_at(
    examples: Sequence[LengthExample],
    settings: CheapSettings,
    progress: Callable[[int], None] = lambda count: None,
) -> Seen:
    """What the models see of examples; `progress` is told each one."""
    features, words = [], []
    for example in examples:
        features.append(prompt_features(example.prompt))
        words.append(hash_question(example.prompt))
        progress(1)
    ends = np.cumsum([0, *(len(each.places) for each in words)])
    table = csr_matrix(
        (
            np.concatenate([each.weights for each in words]),
            np.concatenate([each.places for each in words]),
            ends,
        ),
        shape=(len(words), 2 * SIZE),
    )
    return Seen(
        np.array(features),
        table,
        np.array([example.tokens for example in examples], np.float64),
        np.array([example.cut > 0 for example in examples]),
        np.array([settings.later_weight if each.turn else 1.0 for each in examples]),
        np.array([zlib.crc32(example.conversation.encode()) for example in examples]),
    )


def save_cheap(
    trained: Trained,
    folder: Path,
    name: str,
    about: dict[str, Any],
    held_out: Sequence[LengthExample],
) -> None:
    """Write the folder that `CheapRanker.load` reads.

    Args:
        trained: what to save.
        folder: where.
        name: of the ranker.
        about: what its card says besides.
        held_out: examples that it did not learn from; they say what its scores mean in tokens.

    Raises:
        DataError: if it cannot be written, or no held-out example has an answer that ended by itself.
    """
    first = [example for example in held_out if not example.turn] or list(held_out)
    trees = trained.trees.model_to_string(num_iteration=trained.trees.best_iteration)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / LINEAR_FILE, trained.linear, allow_pickle=False)
        (folder / TREES_FILE).write_text(trees, encoding="utf-8")
        ranker = CheapRanker(trained.linear, import_lightgbm().Booster(model_str=trees), name)
        scores = ranker.score([example.prompt for example in first])
        LengthCalibration.fit(scores, first).save(folder / CALIBRATION)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}); check the path") from None
    write_card(folder, "cheap", name, about)


def _fit_linear(
    words: Any, target: Floats, weights: Floats, settings: CheapSettings
) -> NDArray[np.float16]:
    """Ridge regression of words, and of pieces of words, each on its own; (2 * SIZE,)."""
    root = np.sqrt(weights)
    centred = root * (target - np.average(target, weights=weights))
    scaled = (diags(root) @ words).tocsc()
    parts = [
        lsqr(part, centred, damp=np.sqrt(penalty), atol=1e-4, btol=1e-4, iter_lim=40)[0]
        for part, penalty in (
            (scaled[:, :SIZE], settings.ridge),
            (scaled[:, SIZE:], settings.ridge_pieces),
        )
    ]
    weights_of_all: NDArray[np.float16] = np.concatenate(parts).astype(np.float16)
    return weights_of_all


def _say(words: Any, linear: NDArray[np.float16]) -> Floats:
    weights = linear.astype(np.float32)
    of_words, of_pieces = words[:, :SIZE] @ weights[:SIZE], words[:, SIZE:] @ weights[SIZE:]
    return np.column_stack([of_words, of_pieces, of_words + of_pieces])


def _tau(scores: Floats, seen: Seen) -> float:
    """On first turns, if there are any, for those are what a front end sees most."""
    first = seen.weights == seen.weights.max()
    return kendall_tau(scores[first], seen.tokens[first], seen.cut[first])
