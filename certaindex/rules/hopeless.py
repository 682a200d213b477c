"""Two-sided stopping: any rule that stops when certain, and a stop when the query is hopeless."""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import StopRule, Verdict, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class OrHopeless:
    """`certain`, or stop where after `min_samples` the leader has at most `share` of all samples.

    Without a leader by then, the answers are scattered: the majority of many more samples is seldom
    right, and samples of such queries are the longest. Samples without an answer count as
    scattered.

    Attributes:
        certain: the rule that is asked first.
        share: largest share of the leader among finished samples that is hopeless, 0 to 1.
        min_samples: finished samples before the first look.
    """

    certain: StopRule
    share: float = 0.25
    min_samples: int = 12

    def __post_init__(self) -> None:
        require("hopeless", "share", self.share, "between 0 and 1", 0 <= self.share <= 1)
        require("hopeless", "min_samples", self.min_samples, "1 or more", self.min_samples >= 1)

    def decide(self, votes: Votes) -> Verdict:
        """The verdict of `certain`, or `hopeless` with the leader's share as its value."""
        verdict = self.certain.decide(votes)
        if verdict.stop or votes.n < self.min_samples:
            return verdict
        share = votes.top_two()[0] / votes.n
        return Verdict("hopeless", share) if share <= self.share else verdict
