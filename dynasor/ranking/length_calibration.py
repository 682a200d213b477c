"""What a ranker's score says about tokens: a monotone map, fitted on held-out answers.

Scores are sorted into bins of about equal size. In each bin the logarithms of the answers' tokens
have a mean, a standard deviation and quantiles; means and quantiles are then made to rise with the
score (isotonic regression), and between the bins' centres all of them are interpolated linearly. Before
that the means are drawn to a straight line through them, as far as their own noise explains that they
lie off it: few examples make few and noisy bins, and an order is lost where neighbours are made equal.
An answer that a limit cut counts as some longer one: as the part of the bin's log-normal
distribution above it, found by expectation maximisation (the Tobit model).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from dynasor.errors import DataError
from dynasor.ranking.examples import LengthExample

Array = NDArray[np.float64]

CALIBRATION = "calibration.json"
"""Its name in the folder of a ranker."""

BINS, BIN_SIZE = 24, 40
"""At most so many bins, of at least so many examples each."""

LEVELS = tuple(float(level) for level in np.round(np.linspace(0.02, 0.98, 25), 4))
SHARES = (np.arange(8) + 0.5) / 8
POINTS = ndtri(SHARES)
"""An example that stands for several answers counts as eight equally likely ones."""

MIN_SD = 0.05
"""Of log tokens: no bin is so sure that an answer 5% longer would be impossible."""


@dataclass(frozen=True, slots=True)
class LengthCalibration:
    """A map from scores to the distribution of the logarithm of output tokens.

    Attributes:
        scores: (bins,) rising centres of the bins.
        mean_log: (bins,) mean of log tokens, never falling.
        sd_log: (bins,) standard deviation of log tokens.
        quantile_log: (bins, levels) quantiles of log tokens, falling along neither axis.
        levels: (levels,) rising levels of the quantiles.
        examples: how many examples it was fitted on.
    """

    scores: tuple[float, ...]
    mean_log: tuple[float, ...]
    sd_log: tuple[float, ...]
    quantile_log: tuple[tuple[float, ...], ...]
    levels: tuple[float, ...]
    examples: int

    @classmethod
    def fit(cls, scores: ArrayLike, examples: Sequence[LengthExample]) -> Self:
        """The calibration of `scores` by examples that the ranker was not trained on.

        Args:
            scores: (examples,) finite scores of the examples' prompts.
            examples: the prompts with their answers' tokens; those of zero tokens are left out.

        Raises:
            DataError: if a score is not finite, their number differs, or no example is left.
        """
        given = np.asarray(scores, dtype=np.float64)
        if given.shape != (len(examples),):
            raise DataError(f"{given.size} scores for {len(examples)} examples; give one for each")
        if not np.isfinite(given).all():
            raise DataError("a score is not a finite number, so it says nothing about tokens")
        kept = np.array([e.tokens > 0 and np.isfinite(e.tokens) for e in examples], dtype=bool)
        if not kept.any():
            raise DataError("no example has tokens, so there is nothing to calibrate scores on")
        given, whole = given[kept], [e for e, keep in zip(examples, kept, strict=True) if keep]
        answers, cut = _log_answers(whole)
        members = _bins(given)
        filled = [_with_cut_ones_completed(answers[m], cut[m]) for m in members]
        weights = np.array([len(m) for m in members], dtype=np.float64)
        quantiles = np.stack([np.quantile(values, LEVELS) for values in filled])
        centres = np.array([given[m].mean() for m in members])
        means = np.array([values.mean() for values in filled])
        deviations = np.array([max(MIN_SD, values.std()) for values in filled])
        return cls(
            scores=_numbers(centres),
            mean_log=_rising(_near_a_line(centres, means, deviations, weights), weights),
            sd_log=_numbers(deviations),
            quantile_log=tuple(
                zip(*(_rising(column, weights) for column in quantiles.T), strict=True)
            ),
            levels=LEVELS,
            examples=len(whole),
        )

    def expected(self, scores: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation of log tokens at each score; the shape of `scores` each.

        Beyond the outermost bins' centres the mean goes on as steeply as from their neighbours, for as
        far as those are away: else the most extreme prompts would all look alike.
        """
        at = np.asarray(scores, dtype=np.float64)
        knots, means = _with_ends(np.array(self.scores), np.array(self.mean_log))
        return np.interp(at, knots, means), np.interp(at, self.scores, self.sd_log)

    def quantile(self, scores: ArrayLike, level: float) -> Array:
        """Tokens that the answer at each score stays below with probability `level`.

        Levels outside the fitted ones, 0.02 to 0.98, give the outermost of them.
        """
        table = np.asarray(self.quantile_log, dtype=np.float64)
        logs = np.array([np.interp(level, self.levels, row) for row in table])
        tokens: Array = np.exp(np.interp(np.asarray(scores, dtype=np.float64), self.scores, logs))
        return tokens

    def to_json(self) -> dict[str, Any]:
        """Its fields, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """The calibration with these fields.

        Raises:
            DataError: if a field is missing, or its numbers cannot be those of a calibration.
        """
        try:
            found = cls(
                scores=_numbers(fields["scores"]),
                mean_log=_numbers(fields["mean_log"]),
                sd_log=_numbers(fields["sd_log"]),
                quantile_log=tuple(_numbers(row) for row in fields["quantile_log"]),
                levels=_numbers(fields["levels"]),
                examples=int(fields["examples"]),
            )
            found._check()
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the length calibration is damaged ({type(error).__name__}: {error}); "
                "train the ranker again"
            ) from None
        return found

    def save(self, path: Path) -> None:
        """Write it as JSON; a kill leaves the old file or the new one."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
        new.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: if the file cannot be read or is damaged.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); train the ranker again") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def _check(self) -> None:
        scores, table = np.array(self.scores), np.array(self.quantile_log)
        if not len(scores) or table.shape != (len(scores), len(self.levels)):
            raise ValueError("quantile_log must have a row a score and a column a level")
        if len(self.mean_log) != len(scores) or len(self.sd_log) != len(scores):
            raise ValueError("mean_log and sd_log must have a number a score")
        numbers = np.concatenate([scores, self.mean_log, self.sd_log, table.ravel(), self.levels])
        if not np.isfinite(numbers).all() or min(self.sd_log) <= 0:
            raise ValueError("numbers must be finite and standard deviations positive")
        if (np.diff(scores) <= 0).any() or (np.diff(self.levels) <= 0).any():
            raise ValueError("scores and levels must rise")


def _log_answers(examples: Sequence[LengthExample]) -> tuple[Array, NDArray[np.bool_]]:
    """(examples, points) log tokens of each example's likely answers, and which examples are cut."""
    tokens = np.log([example.tokens for example in examples])
    spread = np.array([example.spread or 0.0 for example in examples])
    # `tokens` is a mean; the mean of the logarithms of a log-normal lies below its logarithm.
    answers = (tokens - spread**2 / 2)[:, None] + spread[:, None] * POINTS
    return answers, np.array([example.cut > 0 for example in examples])


def _bins(scores: Array) -> list[NDArray[np.intp]]:
    """Positions of the scores of each bin, by rising score; equal scores share a bin."""
    number = max(1, min(BINS, len(scores) // BIN_SIZE))
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, number + 1))[1:-1])
    place = np.searchsorted(edges, scores, side="left")
    return [np.flatnonzero(place == bin_) for bin_ in np.unique(place)]


def _with_cut_ones_completed(answers: Array, cut: NDArray[np.bool_]) -> Array:
    """Flat log tokens of a bin, where cut answers are replaced by likely longer ones.

    With nothing but cut answers their lengths are unknown, and the bounds themselves are taken.
    """
    if not cut.any() or cut.all():
        return answers.ravel()
    from scipy.stats import truncnorm  # a second to import, and only for a fit

    bounds, filled = answers[cut], answers
    for _ in range(100):
        mean, sd = filled.mean(), max(MIN_SD, filled.std())
        longer = truncnorm.ppf(SHARES, (bounds - mean) / sd, np.inf, loc=mean, scale=sd)
        if np.abs(longer - filled[cut]).max() < 1e-4:
            break
        filled = answers.copy()
        filled[cut] = longer
    return filled.ravel()


def _near_a_line(scores: Array, means: Array, deviations: Array, examples: Array) -> Array:
    """Means of bins, drawn to their line (empirical Bayes); arrays of shape `(bins,)`."""
    if len(scores) < 3:
        return means
    line = np.polyval(np.polyfit(scores, means, 1, w=np.sqrt(examples)), scores)
    away, noise = means - line, deviations**2 / examples
    own = max(0.0, float(np.average(away**2 - noise, weights=examples)))
    near: Array = line + away * own / (own + noise)
    return near


def _with_ends(scores: Array, means: Array) -> tuple[Array, Array]:
    """One more point at either end, as far from it as its neighbour is, and on their line."""
    if len(scores) < 2:
        return scores, means
    ends = [2 * each[[0, -1]] - each[[1, -2]] for each in (scores, means)]
    whole = [np.concatenate([e[:1], v, e[1:]]) for e, v in zip(ends, (scores, means), strict=True)]
    return whole[0], whole[1]


def _rising(values: Array, weights: Array) -> tuple[float, ...]:
    from scipy.optimize import isotonic_regression

    return _numbers(isotonic_regression(values, weights=weights).x)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
