"""Stop when the leader is probably the more probable one of the two best answers.

Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency", 2023, section 3 (Beta).
"""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.beta import probability_of_lead
from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class AdaptiveConsistency:
    """Stop when P(Beta(first + 1, second + 1) > 1/2) is at least `threshold`."""

    threshold: float = 0.95

    def __post_init__(self) -> None:
        fits = 0.5 <= self.threshold <= 1
        require("adaptive-consistency", "threshold", self.threshold, "between 0.5 and 1", fits)

    def decide(self, votes: Votes) -> Verdict:
        """Value: that probability."""
        value = probability_of_lead(*votes.top_two())
        return certain_if(votes.answered > 0 and value >= self.threshold, value)
