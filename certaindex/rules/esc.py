"""Stop when all answers of one window agree.

Li et al., "Escape Sky-high Cost: Early-stopping Self-Consistency" (ESC), 2024, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class EarlyStoppingConsistency:
    """Look after each `window` samples; stop when these gave one and the same answer."""

    window: int = 5

    def __post_init__(self) -> None:
        require("esc", "window", self.window, "2 or more", self.window >= 2)

    def decide(self, votes: Votes) -> Verdict:
        """Value: 1 where the last window is complete and of one answer, else 0."""
        if votes.n % self.window:
            return Verdict(None, 0.0)
        answers = set(votes.history[-self.window :])
        unanimous = len(answers) == 1 and None not in answers
        return certain_if(unanimous, float(unanimous))
