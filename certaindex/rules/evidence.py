"""Stop when the leader is far enough ahead in evidence; give up what will not get there."""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class EvidenceLead:
    """Stop when the two heaviest answers are `nats` apart, or will not be within the budget.

    With votes weighed by `certaindex.evidence`, the difference is the log-odds between the two
    answers, as in Wald's sequential test; with unweighted votes it is a lead of so many votes. From
    the middle of the budget on, a query whose lead would not have grown to `nats` at its end, at the
    pace so far, is hopeless.

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
        budget = max(votes.max_samples, votes.n)
        late = 2 * votes.n >= budget
        return Verdict("hopeless" if late and lead * budget / votes.n < self.nats else None, lead)
