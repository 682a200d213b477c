"""What a ranker says of a prompt, and what else of the prompt forecasts go by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.length_prior import LengthPrior
from dynasor.ranking.prompt_vector import prompt_vector
from dynasor.ranking.ranker import Ranker

_LEAST_SD = 0.1  # of a query's centre in log tokens: no rank is surer than that


class Ranked(NamedTuple):
    """What is known of a query by its prompt.

    Attributes:
        rank: place among others, around 0; the longer the answer, the higher.
        lengths: of its samples.
        prompt: its vector, see `dynasor.ranking.prompt_vector`; None if not known.
    """

    rank: float
    lengths: LengthPrior
    prompt: NDArray[np.float32] | None = None


def ranked_by(
    ranker: Ranker, calibration: LengthCalibration, prompts: Sequence[str]
) -> list[Ranked | None]:
    """What a ranker says of prompts; None where its score is not finite.

    Raises:
        ValueError: if the ranker gives another number of scores.
    """
    scores = np.asarray(ranker.score(prompts), dtype=np.float64)
    if scores.shape != (len(prompts),):
        raise ValueError(f"{ranker.name} gave scores of shape {scores.shape} for {len(prompts)}")
    middle = float(np.mean(calibration.scores))
    usual = LengthPrior(0.0)
    means, deviations = calibration.expected(np.nan_to_num(scores))
    # The calibration is of single samples; what is not their spread is the doubt about the centre.
    doubts = np.sqrt(np.maximum(deviations**2 - usual.spread**2, _LEAST_SD**2))
    return [
        Ranked(score - middle, LengthPrior(mean, doubt), prompt_vector(prompt))
        if np.isfinite(score)
        else None
        for prompt, score, mean, doubt in zip(
            prompts, scores.tolist(), means.tolist(), doubts.tolist(), strict=True
        )
    ]
