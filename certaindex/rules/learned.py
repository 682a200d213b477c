"""The default rule: stop when experience says that more samples are not worth their tokens.

Optimal stopping, learned from traces. A linear score of the state of the votes (the probability that
the leader is overtaken within the budget, how sure its lead is, how many samples, how large the two
largest groups, how much budget is left) says how well another sample is worth its cost. It was
trained so that, over the traces, the tokens are few and the accuracy that is lost against the full
budget is small: see `benchmarks/fit_default_rule.py`, which makes the data file beside this module.

So it is two-sided: it stops where the leader will do, and where more samples would not help.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from math import log

from certaindex.rules.beta import probability_of_lead, probability_of_overtaking
from certaindex.rules.verdict import Verdict, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: hashed by identity, in no time
class Experience:
    """What was learned: a weight for each feature, and a caution for each full budget.

    Attributes:
        weights: of the features, see `features`.
        bias: added to the score.
        budgets: full budgets (samples) with a caution, ascending.
        cautions: what is added to the score at each.
    """

    weights: tuple[float, ...]
    bias: float
    budgets: tuple[int, ...]
    cautions: tuple[float, ...]

    @classmethod
    def from_json(cls, text: str) -> Experience:
        """Read what `benchmarks/fit_default_rule.py` wrote."""
        tables = json.loads(text)
        return cls(
            tuple(tables["weights"]),
            tables["bias"],
            tuple(tables["budgets"]),
            tuple(tables["cautions"]),
        )

    def worth_of_more(self, votes: Votes) -> float:
        """Score of going on: log-odds of "continue" at the price that it was taught."""
        return _score(self, *votes.top_two(), votes.n, votes.remaining)


@cache
def shipped() -> Experience:
    """The experience that comes with the package."""
    path = files("certaindex.rules").joinpath("learned.json")
    return Experience.from_json(path.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Learned:
    """Stop when the learned score of going on is at most 0.

    Attributes:
        caution: added to the score; above 0 the rule samples longer, below 0 it stops sooner.
        experience: what was learned.
    """

    caution: float = 0.0
    experience: Experience = field(default_factory=shipped, repr=False)

    def __post_init__(self) -> None:
        require("default", "caution", self.caution, "between -10 and 10", -10 <= self.caution <= 10)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the score. A stop is `hopeless` where the leader has less than half of the votes."""
        value = self.experience.worth_of_more(votes) + self.caution
        if value > 0:
            return Verdict(None, value)
        return Verdict("certain" if 2 * votes.top_two()[0] >= votes.n else "hopeless", value)


def features(first: int, second: int, finished: int, remaining: int) -> list[float]:
    """What the score is made of; the training uses this very function.

    Args:
        first: votes of the largest group.
        second: votes of the next one.
        finished: finished samples, with and without an answer; 1 or more.
        remaining: samples that the full budget still allows.
    """
    return [
        _log_odds(probability_of_lead(first, second)),
        -_log_odds(probability_of_overtaking(first, second, remaining)),
        log(finished),
        first / finished,
        second / finished,
        min(remaining, 64) / 64,
    ]


def _log_odds(probability: float) -> float:
    odds = max(probability, 1e-9) / max(1 - probability, 1e-9)
    return min(max(log(odds), -12.0), 12.0)


@lru_cache(maxsize=65536)
def _score(seen: Experience, first: int, second: int, finished: int, remaining: int) -> float:
    inputs = features(first, second, finished, remaining)
    linear = sum(weight * x for weight, x in zip(seen.weights, inputs, strict=True))
    return linear + seen.bias + _caution(seen, finished + remaining)


def _caution(seen: Experience, budget: int) -> float:
    """What is added at this full budget, interpolated in its logarithm.

    With few samples in the budget there is less to lose, so the rule may stop sooner.
    """
    place = bisect_left(seen.budgets, budget)
    if place == 0 or place == len(seen.budgets):
        return seen.cautions[max(0, place - 1)]
    below, above = log(seen.budgets[place - 1]), log(seen.budgets[place])
    share = (log(budget) - below) / (above - below)
    return seen.cautions[place - 1] + share * (seen.cautions[place] - seen.cautions[place - 1])
