"""Stop when scored answers agree and the reward model likes them.

Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex" (Dynasor), 2024: tree searches are
stopped by their rewards and their agreement together.
"""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.reward import reward_certaindex
from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class RewardThreshold:
    """Stop when the reward certaindex (`certaindex.reward`) is at least `threshold`.

    Answers that were not scored count as agreement alone.

    Attributes:
        threshold: least value, 0 to 1.
        min_samples: answers before the first look.
    """

    threshold: float = 0.8
    min_samples: int = 2

    def __post_init__(self) -> None:
        rule = "reward"
        require(rule, "threshold", self.threshold, "between 0 and 1", 0 <= self.threshold <= 1)
        require(rule, "min_samples", self.min_samples, "2 or more", self.min_samples >= 2)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the reward certaindex, 0 while there are fewer than two answers."""
        value = reward_certaindex(votes) or 0.0
        return certain_if(votes.answered >= self.min_samples and value >= self.threshold, value)
