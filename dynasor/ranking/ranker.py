"""The contract of everything that predicts how long answers to prompts will be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Ranker(Protocol):
    """Gives each prompt a score: the longer the expected answer, the higher.

    Only the order of scores counts; what they say about tokens is a calibration's business.
    """

    @property
    def name(self) -> str:
        """What it is, for tables and logs."""
        ...

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """One finite score a prompt, shape `(len(prompts),)`; an empty or huge prompt has one too."""
        ...
