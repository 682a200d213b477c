"""What the card of a trained ranker says of its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynasor.ranking.examples import LengthExample
from dynasor.ranking.metrics import Floats, kendall_tau
from dynasor.ranking.resampling import interval, resample


def order_metrics(scores: Floats, examples: Sequence[LengthExample]) -> dict[str, Any]:
    """Kendall's tau of scores with its 95% interval, by a bootstrap of conversations."""
    tokens = np.array([example.tokens for example in examples])
    cut = np.array([example.cut > 0 for example in examples])
    draws = resample(
        lambda picks: kendall_tau(scores[picks], tokens[picks], cut[picks]),
        [example.conversation for example in examples],
        draws=300,
    )
    return {
        "n": len(examples),
        "tau": round(kendall_tau(scores, tokens, cut), 4),
        "tau_interval": [round(end, 4) for end in interval(draws)],
    }
