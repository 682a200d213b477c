"""Stop when the leader will hardly change within the remaining budget."""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.beta import probability_of_overtaking
from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class LeaderChange:
    """Stop when P(the runner-up, or an unseen answer, ends ahead of the leader) is at most `risk`.

    Beta-binomial between the leader and its strongest rival, all remaining samples on the two: the
    marginal of a Dirichlet posterior for the pair, as if no sample went elsewhere.
    """

    risk: float = 0.07

    def __post_init__(self) -> None:
        require("leader-change", "risk", self.risk, "between 0 and 1", 0 <= self.risk <= 1)

    def decide(self, votes: Votes) -> Verdict:
        """Value: that probability."""
        first, second = votes.top_two()
        if not first:
            return Verdict(None, 1.0)
        value = probability_of_overtaking(first, second, votes.remaining)
        return certain_if(value <= self.risk, value)
