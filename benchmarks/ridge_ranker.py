"""A ranker that is fitted in a moment on a few hundred prompts: kernel ridge regression.

Three kernels: of the mean hidden states of the small pretrained encoder that rankers are tuned from, as
it comes (some layers of it, for what tells of length is not in the last one alone); of hashed words and
pieces of words; and of the size and shape of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist

from dynasor.ranking.backbone import DEFAULT_BACKBONE, load_backbone
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.hashed_ngrams import SIZE, hash_text
from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.prompt_window import PromptWindow, collate

Floats = NDArray[np.float64]

LAYERS = (1, 3, 5)
WINDOW = 256
BATCH = 32
SHARES = {"states": 0.65, "words": 0.2, "shape": 0.15}
"""Of the kernels in the sum; each has a mean diagonal of 1 on what was learned from."""
NARROW = 1.5
"""Of the states' kernel: exp(-NARROW * squared distance over its median)."""


class Seen(NamedTuple):
    """What is looked at of prompts: a row each.

    Attributes:
        states: (prompts, features) mean hidden states.
        words: (prompts, places) sparse.
        shape: (prompts, SHAPE_SIZE).
    """

    states: Floats
    words: csr_matrix
    shape: Floats


class RidgeRanker:
    """Scores are predicted log tokens, less their mean.

    Args:
        prompts: to learn from, two or more.
        log_tokens: of each.
        ridge: penalty.

    Attributes:
        held_out: score of each of the prompts by the ranker that was fitted on all others.
    """

    name = "ridge on encoder states and words"

    def __init__(self, prompts: Sequence[str], log_tokens: ArrayLike, ridge: float = 0.3) -> None:
        found = _look_at(prompts)
        self._standards = [(each.mean(axis=0), each.std(axis=0) + 1e-6) for each in found[::2]]
        self._seen = seen = self._standardised(found)
        far = _squared_distances(seen.states, seen.states)
        self._width = float(np.median(far[far > 0])) / NARROW
        self._sizes = [_mean_square(seen.words), _mean_square(seen.shape)]
        target = np.asarray(log_tokens) - np.mean(log_tokens)
        inverse = np.linalg.inv(self._likeness(seen) + ridge * np.eye(len(prompts)))
        self._dual = inverse @ target
        self.held_out = target - self._dual / np.diag(inverse)

    def score(self, prompts: Sequence[str]) -> Floats:
        """See `dynasor.ranking.ranker.Ranker`."""
        return np.asarray(self._likeness(self._standardised(_look_at(prompts))) @ self._dual)

    def _standardised(self, found: Seen) -> Seen:
        states, shape = [
            (each - mean) / sd for each, (mean, sd) in zip(found[::2], self._standards, strict=True)
        ]
        return Seen(states, found.words, shape)

    def _likeness(self, asked: Seen) -> Floats:
        """(asked, seen) kernel."""
        seen, (of_words, of_shape) = self._seen, self._sizes
        near = np.exp(-_squared_distances(asked.states, seen.states) / self._width)
        words = (asked.words @ seen.words.T).toarray() / of_words
        shape = asked.shape @ seen.shape.T / of_shape
        total = SHARES["states"] * near + SHARES["words"] * words + SHARES["shape"] * shape
        return np.asarray(total)


def calibrated_ridge(examples: Sequence[LengthExample]) -> tuple[RidgeRanker, LengthCalibration]:
    """A ridge ranker, and its calibration by held-out scores."""
    logs = [np.log(e.tokens) - (e.spread or 0.0) ** 2 / 2 for e in examples]
    ranker = RidgeRanker([e.prompt for e in examples], logs)
    return ranker, LengthCalibration.fit(ranker.held_out, examples)


def _look_at(prompts: Sequence[str]) -> Seen:
    states, shape = _encode(prompts)
    hashed = [hash_text(prompt) for prompt in prompts]
    ends = np.cumsum([0, *(len(each.places) for each in hashed)])
    places = np.concatenate([each.places for each in hashed])
    weights = np.concatenate([each.weights for each in hashed]).astype(np.float64)
    return Seen(states, csr_matrix((weights, places, ends), shape=(len(prompts), 2 * SIZE)), shape)


def _encode(prompts: Sequence[str]) -> tuple[Floats, Floats]:
    """Mean hidden states of some layers, and the shapes."""
    backbone = load_backbone(DEFAULT_BACKBONE)
    window = PromptWindow(backbone.tokenizer, backbone.ends, WINDOW)
    states: list[Floats] = []
    shapes: list[Floats] = []
    with torch.inference_mode():
        for first in range(0, len(prompts), BATCH):
            ids, mask, shape = collate(window.cut(prompts[first : first + BATCH]))
            found = backbone.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            there = mask.unsqueeze(-1)
            means = [(found.hidden_states[k] * there).sum(1) / there.sum(1) for k in LAYERS]
            states.append(torch.cat(means, dim=-1).double().numpy())
            shapes.append(shape.double().numpy())
    return np.concatenate(states), np.concatenate(shapes)


def _squared_distances(one: Floats, other: Floats) -> Floats:
    return np.asarray(cdist(one, other, "sqeuclidean"))


def _mean_square(rows: Floats | csr_matrix) -> float:
    """Mean of the squared lengths of the rows."""
    squares = rows.multiply(rows) if isinstance(rows, csr_matrix) else rows**2
    return float(squares.sum()) / rows.shape[0]
