"""How long one engine step takes, as a function of what it computes; fitted to measured steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, NamedTuple, Self

import numpy as np

from dynasor.errors import DataError

EARLY = (2, 4, 8, 16, 32)
"""Batch sizes up to which a request may cost more than in larger ones: arithmetic in small batches is
done less well, so that a step is a concave function of its requests."""
_ROUNDS = 6  # of fitting and leaving out what is far off
_FEWEST = 10
_FELT = 1e-3  # of a step: a term of small batches that adds less is left out
_FAR = 3.0  # in robust standard deviations of the relative error
_LEAST_SPREAD = 0.02  # relative; keeps good steps where almost all fit exactly


class Step(NamedTuple):
    """One measured step.

    Attributes:
        seconds: that it took.
        decoding: requests that got their next token.
        prefill_tokens: tokens of prompts that were computed, preempted outputs included.
        context_tokens: tokens in the KV cache of all requests of the step, new ones included.
        logprobs: requests among those that decode that want log-probabilities.
    """

    seconds: float
    decoding: int
    prefill_tokens: int
    context_tokens: int
    logprobs: int = 0


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step: a sum of terms.

    Attributes:
        base: of any step.
        per_request: for each request that decodes.
        per_prefill_token: for each token of a prompt.
        per_context_token: for each token in the KV cache that attention reads.
        per_logprob: for each request that decodes and wants log-probabilities, besides; see
            `with_logprobs`.
        early: (requests, seconds): for each of the first so many requests that decode, besides.
        error: median relative error on the steps that it was fitted to; None where it was not.
    """

    base: float
    per_request: float = 0.0
    per_prefill_token: float = 0.0
    per_context_token: float = 0.0
    per_logprob: float = 0.0
    early: tuple[tuple[int, float], ...] = ()
    error: float | None = None

    def __post_init__(self) -> None:
        for name in _TERMS:
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more seconds, not {value}")
        for requests, seconds in self.early:
            if not (requests >= 1 and isfinite(seconds) and seconds >= 0):
                raise ValueError(
                    "early must have pairs of 1 or more requests and 0 or more seconds, not "
                    f"{requests} and {seconds}"
                )
        if not any(getattr(self, name) for name in _TERMS[:2]):
            raise ValueError("base or per_request must be above 0, or decoding takes no time")

    def step(self, decoding: int, prefill_tokens: int, context_tokens: int) -> float:
        """Seconds of one step."""
        return (
            self.batch(decoding)
            + self.per_prefill_token * prefill_tokens
            + self.per_context_token * context_tokens
        )

    def batch(self, decoding: int) -> float:
        """Seconds of a step for the requests that decode, whatever they read."""
        seconds = self.base + self.per_request * decoding
        for requests, each in self.early:
            seconds += each * (decoding if decoding < requests else requests)
        return seconds

    def with_logprobs(self) -> Self:
        """As it is where all requests want log-probabilities."""
        return replace(self, per_request=self.per_request + self.per_logprob, per_logprob=0.0)

    def decode(self, steps: int, decoding: int, context_tokens: int) -> float:
        """Seconds of `steps` steps in a row in which the same requests decode.

        Args:
            steps: how many.
            decoding: requests.
            context_tokens: of all of them before the first step; each step adds one a request.
        """
        read = steps * context_tokens + decoding * (steps * (steps + 1) // 2)
        return steps * self.batch(decoding) + self.per_context_token * read

    @classmethod
    def fit(cls, steps: Sequence[Step]) -> Self:
        """Non-negative least squares of the relative error, without the steps that are far off.

        Errors are relative to the prediction of the round before: relative to the measured seconds
        they would draw the fit towards the quickest steps. A step that the operating system held up
        says nothing about the engine: what is off by more than 3 robust standard deviations is left
        out of the next round.

        Raises:
            DataError: if there are too few steps, or no time in what each token takes.
        """
        from scipy.optimize import nnls

        rows = np.array([step for step in steps if step[0] > 0], dtype=float).reshape(-1, 5)
        if len(rows) < _FEWEST:
            raise DataError(f"{len(rows)} measured steps: at least {_FEWEST} are needed for a fit")
        seconds = rows[:, 0]
        sizes = [size for size in EARLY if size < rows[:, 1].max()]
        early = [np.minimum(rows[:, 1], size) for size in sizes]
        inputs = np.column_stack([np.ones(len(rows)), rows[:, 1:], *early])
        scale = np.maximum(inputs.max(axis=0), 1e-30)
        inputs /= scale
        predicted = np.full(len(rows), np.median(seconds))
        kept = np.ones(len(rows), dtype=bool)
        for _ in range(_ROUNDS):
            weighted = inputs / predicted[:, None]
            terms = nnls(weighted[kept], (seconds / predicted)[kept])[0]
            # A step cannot be predicted to take next to nothing, whatever the first rounds say.
            predicted = np.maximum(inputs @ terms, 0.1 * seconds.min())
            off = np.abs(seconds / predicted - 1)
            spread = 1.4826 * float(np.median(off))
            kept = off <= _FAR * max(spread, _LEAST_SPREAD)
        base, request, prefill, context, logprob, *more = (terms / scale).tolist()
        felt = _FELT * float(np.median(predicted))
        first = tuple((n, each) for n, each in zip(sizes, more, strict=True) if n * each > felt)
        if not base and not request:
            raise DataError(
                f"the {len(rows)} measured steps do not say what a token costs; measure again, with "
                "nothing else running"
            )
        return cls(base, request, prefill, context, logprob, first, float(np.median(off)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            DataError: naming the field, its value and what is allowed.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or "base" not in values or set(values) - set(names):
            raise DataError(f"step_time must be an object with {', '.join(names)}, not {values!r}")
        try:
            values = {**values, "early": _pairs(values.get("early", []))}
        except OverflowError:
            raise DataError("step_time.early: a number is out of range") from None
        for name, value in values.items():
            if name == "early":
                continue
            optional = name == "error" and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise DataError(f"step_time.{name} must be a number of seconds, not {value!r}")
        try:
            return cls(**values)
        except (ValueError, OverflowError) as error:
            raise DataError(f"step_time: {error}") from None


def _pairs(values: Any) -> tuple[tuple[int, float], ...]:
    """What `early` says in JSON.

    Raises:
        DataError: if it is no list of pairs of a whole number and a number.
    """
    message = f"step_time.early must be a list of [requests, seconds], not {values!r}"
    if not isinstance(values, list):
        raise DataError(message)
    pairs = []
    for pair in values:
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int):
            raise DataError(message)
        if isinstance(pair[1], bool) or not isinstance(pair[1], int | float):
            raise DataError(message)
        pairs.append((pair[0], float(pair[1])))
    return tuple(pairs)


_TERMS = ("base", "per_request", "per_prefill_token", "per_context_token", "per_logprob")
