"""Stop when the leader has nearly all of the weight of the votes.

Fu et al., "Deep Think with Confidence" (DeepConf), 2025: the consensus that ends online sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Consensus:
    """Stop when the heaviest answer has at least `share` of the weight of all answers.

    Attributes:
        share: of the leader in the weight of all votes, 0 to 1.
        min_samples: answers before the first look.
    """

    share: float = 0.95
    min_samples: int = 4

    def __post_init__(self) -> None:
        require("consensus", "share", self.share, "above 0.5 and at most 1", 0.5 < self.share <= 1)
        require("consensus", "min_samples", self.min_samples, "1 or more", self.min_samples >= 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the leader's share, 0 while nothing weighs."""
        whole = sum(votes.weights)
        value = votes.heaviest_two()[0] / whole if whole > 0 else 0.0
        return certain_if(votes.answered >= self.min_samples and value >= self.share, value)
