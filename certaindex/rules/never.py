"""Never stop: the full budget of any program, to compare with."""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Never:
    """Go on until the program has spent its budget."""

    def decide(self, votes: Votes) -> Verdict:
        """Value: finished samples."""
        return Verdict(None, votes.n)
