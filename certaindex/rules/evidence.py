"""Stop when the leader is far enough ahead in evidence; give up what is not there half-way."""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class EvidenceLead:
    """Stop when the two heaviest answers are `nats` apart, or are not when half of the budget is used.

    With votes weighed by `certaindex.evidence`, the difference is the log-odds between the two
    answers, as in Wald's sequential test; with unweighted votes it is a lead of so many votes. What
    eight of sixteen samples have not told, the others seldom do: a query that is not decided by the
    middle of the budget is hopeless.

    Attributes:
        nats: lead in weight at which the leader will do.
    """

    nats: float = 2.0

    def __post_init__(self) -> None:
        require("evidence", "nats", self.nats, "above 0", 0 < self.nats < 1e6)

    def decide(self, votes: Votes) -> Verdict:
        """Value: the lead."""
        first, second = votes.heaviest_two()
        lead = first - second
        if lead >= self.nats:
            return Verdict("certain", lead)
        half = 2 * votes.n >= max(votes.max_samples, votes.n)
        return Verdict("hopeless" if half else None, lead)
