"""The simplest ranker: the longer the question, the longer the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.prompt_text import split_question


class PromptLength:
    """Scores a prompt by ln(1 + characters of its question)."""

    name = "prompt-length"

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """See `Ranker.score`."""
        return np.log1p([len(split_question(prompt)[1]) for prompt in prompts])
