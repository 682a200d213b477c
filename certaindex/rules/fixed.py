"""Stop after a fixed number of samples: self-consistency with a smaller budget."""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Fixed:
    """Stop after `samples` finished samples, whatever they say."""

    samples: int = 16

    def __post_init__(self) -> None:
        require("fixed", "samples", self.samples, "1 or more", self.samples >= 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: finished samples."""
        return certain_if(votes.n >= self.samples, votes.n)
