"""Evidence of a sample: how much its likelihood says that its answer is right.

Samples of one model that are right tend to be likelier, token by token, than those that are wrong, by
how much depends on the model. `Evidence` holds what was learned of one model: the probability that a
sample gives the answer that its query settles on, as a logistic function of its likelihood. A vote is
then worth -ln(1 - p) nats: were samples independent, the probability that all who voted for an answer
erred would be exp(-sum of these). A vote at p = 1 - 1/e = 0.63 counts 1, as an unweighted vote does.

Weighing votes by the model's own confidence: Taubenfeld et al., "Confidence Improves
Self-Consistency in LLMs" (CISC), 2025; the calibration in nats is ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from math import exp, isfinite, isnan, log, nan, sqrt
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

LEAST, MOST = 0.02, 0.999
"""Probabilities beyond these are not believed: a vote weighs between 0.02 and 6.9 nats."""
FEWEST = 100
"""Samples from which something can be learned."""
_STEPS = 50
_RIDGE = 0.01  # keeps the slope finite where likelihood tells right from wrong without error


def likelihood(logprobs: Sequence[float]) -> float:
    """Sum of the tokens' log-probabilities over the square root of their number, nats.

    Between the sum, which punishes length, and the mean, which forgets how many tokens agree.
    """
    return sum(logprobs) / sqrt(len(logprobs)) if logprobs else 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a sample's likelihood says, learned for one model: p = sigmoid(bias + slope * z).

    Attributes:
        center, scale: z = (likelihood - center) / scale.
        slope, bias: of the log-odds that the sample gives its query's answer.
        samples: that it was learned from.
        cut_below: a running sample whose likelihood so far gives it less than this chance is cut (see
            `certaindex.early_cut`); 0 for none, where cutting does not pay.
        look_every: tokens between two looks at a running sample.
    """

    center: float
    scale: float
    slope: float
    bias: float
    samples: int
    cut_below: float = 0.0
    look_every: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise ValueError(f"{field.name} must be a number, not {value!r}")
        if self.scale <= 0:
            raise ValueError(f"scale must be above 0, not {self.scale}")
        if not 0 <= self.cut_below < 1:
            raise ValueError(f"cut_below must be 0 or more and below 1, not {self.cut_below}")
        if not isinstance(self.look_every, int) or self.look_every < 1:
            raise ValueError(f"look_every must be a whole number above 0, not {self.look_every}")

    def probability(self, value: float) -> float:
        """Probability that a sample of this likelihood gives the answer of its query."""
        odds = self.bias + self.slope * (value - self.center) / self.scale
        p = 1 / (1 + exp(-odds)) if odds > -700 else 0.0
        return min(max(p, LEAST), MOST)

    def weigh(self, logprobs: Sequence[float] | None) -> float:
        """Weight of a vote, nats; 1, as an unweighted vote, where the engine gave no likelihood."""
        value = likelihood(logprobs) if logprobs else nan
        return 1.0 if isnan(value) else -log(1 - self.probability(value))

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: naming what is wrong.
        """
        values = json.loads(text)
        names = [field.name for field in fields(cls)]
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(values, dict) or not needed <= set(values) <= set(names):
            raise ValueError(f"must be an object with {', '.join(names)}")
        return cls(**values)


def fit_evidence(values: ArrayLike, agreed: ArrayLike) -> Evidence:
    """Logistic regression by Newton's method, with a slight pull of both parameters to 0.

    Args:
        values: (samples,) float, likelihood of each sample.
        agreed: (samples,) bool, whether it gave the answer on which its query settled.

    Raises:
        ValueError: if there are too few samples, or all agree or none does.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(agreed, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < FEWEST:
        raise ValueError(f"evidence needs {FEWEST} samples or more with likelihoods, not {len(x)}")
    if not 0 < y.mean() < 1:
        raise ValueError("all samples give the same verdict: there is nothing to tell apart")
    center, scale = float(x.mean()), max(float(x.std()), 1e-9)
    inputs = np.column_stack([np.ones_like(x), (x - center) / scale])
    weights = np.zeros(2)
    ridge = _RIDGE * np.eye(2)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge
        weights += np.linalg.solve(curvature, inputs.T @ (y - p) - ridge @ weights)
    bias, slope = (round(float(w), 5) for w in weights)
    return Evidence(round(center, 5), round(scale, 5), slope, bias, len(x))


def separation(values: ArrayLike, agreed: ArrayLike) -> float:
    """Probability that a sample that agreed is likelier than one that did not (area under ROC).

    Args:
        values: (samples,) float.
        agreed: (samples,) bool; some agreed, some did not.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(agreed, dtype=bool)
    ordered = np.sort(x[~y])
    below = np.searchsorted(ordered, x[y], side="left")
    equal = np.searchsorted(ordered, x[y], side="right") - below
    return float((below + equal / 2).mean() / len(ordered))
