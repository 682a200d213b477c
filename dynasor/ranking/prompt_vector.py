"""A prompt as a short vector, from which prompts like it can be told while an engine runs.

Its shape, its words and pieces of words folded into a few places with signs (Weinberger et al., 2009),
and a constant. No model, and little time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.hashed_ngrams import hash_question
from dynasor.ranking.prompt_shape import SHAPE_SIZE, prompt_shape

FOLDED = 256
"""Places that words share."""
VECTOR_SIZE = FOLDED + SHAPE_SIZE + 1

_USUAL = np.array([2.0, 2.0, 1.5, 1.5, 0.05, 0.05, 0.05, 0.5])
"""How far prompts differ in each number of their shape, about."""
_CONSTANT = 10.0  # much more than the rest, so that a penalty hardly holds it


def prompt_vector(prompt: str) -> NDArray[np.float32]:
    """The vector of a prompt, (VECTOR_SIZE,) float32; shape and words have lengths of about 1."""
    hashed = hash_question(prompt)
    signs = np.where(hashed.places // FOLDED % 2, 1.0, -1.0)
    words = np.bincount(hashed.places % FOLDED, signs * hashed.weights, FOLDED) / np.sqrt(2)
    shape = np.array(prompt_shape(prompt)) / _USUAL / np.sqrt(SHAPE_SIZE)
    return np.concatenate([words, shape, [_CONSTANT]], dtype=np.float32, casting="same_kind")
