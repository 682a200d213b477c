"""Sequential probability ratio tests between the two best answers.

Lee et al., "ConSol: Sequential Probability Ratio Testing to Find Consistent LLM Reasoning Paths
Efficiently", 2025. The null hypothesis is that both answers are equally probable (p = 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from certaindex.rules.beta import log_evidence_of_lead
from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Sprt:
    """Wald's test of p = 1/2 against p = `share`; stops when either hypothesis is accepted.

    Attributes:
        alpha: probability of calling equal answers different.
        beta: probability of calling different answers equal (`hopeless`: no leader will emerge).
        share: share of the leader among the two under the alternative.
    """

    alpha: float = 0.05
    beta: float = 0.05
    share: float = 0.75

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            require("sprt", name, value, "above 0 and below 0.5", 0 < value < 0.5)
        require("sprt", "share", self.share, "above 0.5 and below 1", 0.5 < self.share < 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the log-likelihood ratio, nats."""
        first, second = votes.top_two()
        value = first * log(2 * self.share) + second * log(2 * (1 - self.share))
        if value <= log(self.beta / (1 - self.alpha)):
            return Verdict("hopeless", value)
        return certain_if(value >= log((1 - self.beta) / self.alpha), value)


@dataclass(frozen=True, slots=True)
class MixtureSprt:
    """mSPRT: the alternative is a mixture, uniform on (1/2, 1), so no share need be guessed.

    Attributes:
        alpha: probability of calling equal answers different, at any time.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        require("msprt", "alpha", self.alpha, "above 0 and below 1", 0 < self.alpha < 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the log-likelihood ratio of the mixture, nats."""
        value = log_evidence_of_lead(*votes.top_two())
        return certain_if(value >= -log(self.alpha), value)
