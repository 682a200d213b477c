"""Anytime-valid certificate that the leader is the most probable answer.

The one-against-one test of Jain et al., "PAC Mode Estimation using PPR Martingale Confidence
Sequences", 2022, made to work for answers that nobody listed beforehand. Ramdas et al.,
"Game-theoretic statistics and safe anytime-valid inference", 2023, for e-processes in general.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from certaindex.rules.beta import log_evidence_of_lead
from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class EProcess:
    """Stop when an e-process rejects, at level `alpha`, that another answer is the most probable.

    For independent samples, P(the rule ever stops at an answer that is not the mode) <= alpha, no
    matter how often one looks. Why: let m be the mode and i the r-th answer to be discovered. After
    its discovery the bets on "i rather than m" form a test supermartingale that starts at 1, hence
    it ever reaches r (r + 1) / alpha with probability at most alpha / (r (r + 1)) (Ville), which
    sums to alpha over r. The vote that discovered i is no evidence and is not counted; votes that m
    had before only lower the value. The runner-up is at least as large as m.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        require("eprocess", "alpha", self.alpha, "above 0 and below 1", 0 < self.alpha < 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: ln of the e-value over r (r + 1)."""
        if votes.leader is None:
            return Verdict(None, 0.0)
        first = votes.counts[votes.leader]
        second = max((c for g, c in enumerate(votes.counts) if g != votes.leader), default=0)
        rank = votes.leader + 1
        value = log_evidence_of_lead(first - 1, second) - log(rank * (rank + 1))
        return certain_if(value >= -log(self.alpha), value)
