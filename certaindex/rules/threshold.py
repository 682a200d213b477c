"""Stop when the agreement certaindex reaches a threshold.

Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex" (Dynasor), 2024, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.agreement import certaindex
from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class CertaindexThreshold:
    """Stop when the certaindex is at least `threshold`.

    Attributes:
        threshold: least certaindex, 0 to 1.
        min_samples: answers before the first look.
        every: finished samples between two looks.
    """

    threshold: float = 0.9
    min_samples: int = 4
    every: int = 1

    def __post_init__(self) -> None:
        rule = "certaindex"
        require(rule, "threshold", self.threshold, "between 0 and 1", 0 <= self.threshold <= 1)
        require(rule, "min_samples", self.min_samples, "2 or more", self.min_samples >= 2)
        require(rule, "every", self.every, "1 or more", self.every >= 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the certaindex, 0 while there are fewer than two answers."""
        value = certaindex(votes.counts) or 0.0
        look = votes.answered >= self.min_samples and (votes.n - self.min_samples) % self.every == 0
        return certain_if(look and value >= self.threshold, value)
