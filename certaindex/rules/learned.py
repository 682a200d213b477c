"""The default rule: stop when experience says that more samples are not worth their tokens.

Optimal stopping, learned from traces. A tiny network looks at the state of the votes (how many
samples, how large the two largest groups, how much budget is left, and two probabilities of these)
and scores how well another sample is worth its cost. It was trained so that, over the traces, the
tokens are few and the accuracy that is lost against the full budget is small: see
`benchmarks/fit_default_rule.py`, which makes the data file beside this module.

So it is two-sided: it stops where the leader will do, and where more samples would not help.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from math import log, tanh

from certaindex.rules.beta import probability_of_lead, probability_of_overtaking
from certaindex.rules.verdict import Verdict, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Learned:
    """Stop when the learned score of going on is at most 0.

    Attributes:
        caution: added to the score; above 0 the rule samples longer, below 0 it stops sooner.
    """

    caution: float = 0.0

    def __post_init__(self) -> None:
        require("default", "caution", self.caution, "between -10 and 10", -10 <= self.caution <= 10)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the score. A stop is `hopeless` where the leader has less than half of the votes."""
        value = worth_of_more(votes) + self.caution
        if value > 0:
            return Verdict(None, value)
        return Verdict("certain" if 2 * votes.top_two()[0] >= votes.n else "hopeless", value)


def worth_of_more(votes: Votes) -> float:
    """Score of going on: log-odds of "continue" at the price that the network was trained with."""
    return _score(*votes.top_two(), votes.n, votes.remaining)


def features(first: int, second: int, finished: int, remaining: int) -> list[float]:
    """What the network sees of a state of votes; the training uses this very function.

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
def _score(first: int, second: int, finished: int, remaining: int) -> float:
    network = _network()
    values = [
        (x - mean) / scale
        for x, mean, scale in zip(
            features(first, second, finished, remaining),
            network["mean"],
            network["scale"],
            strict=True,
        )
    ]
    hidden = [
        tanh(sum(w * x for w, x in zip(row, values, strict=True)) + bias)
        for row, bias in zip(network["weights"], network["biases"], strict=True)
    ]
    pairs = zip(network["output_weights"], hidden, strict=True)
    score = float(sum(w * x for w, x in pairs) + network["output_bias"])
    return score + _caution(finished + remaining)


@lru_cache(maxsize=1024)
def _caution(budget: int) -> float:
    """What is added at this full budget (samples), between those at which it was fitted.

    With few samples in the budget there is less to lose, so the rule may stop sooner.
    """
    network = _network()
    budgets, cautions = network["budgets"], network["cautions"]
    place = bisect_left(budgets, budget)
    if place == 0 or place == len(budgets):
        return float(cautions[max(0, place - 1)])
    below, above = log(budgets[place - 1]), log(budgets[place])
    share = (log(budget) - below) / (above - below)
    return float(cautions[place - 1] + share * (cautions[place] - cautions[place - 1]))


@cache
def _network() -> dict[str, list]:  # type: ignore[type-arg]
    text = files("certaindex.rules").joinpath("learned.json").read_text(encoding="utf-8")
    network: dict[str, list] = json.loads(text)  # type: ignore[type-arg]
    return network
