"""Stop when the last answers agree: how a chain of thought that is probed comes to its end.

Fu et al., "Reasoning Without Self-Doubt: More Efficient Chain-of-Thought Through Certainty Probing"
(Dynasor-CoT), 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

from certaindex.rules.verdict import Verdict, certain_if, require
from certaindex.votes import Votes


@dataclass(frozen=True, slots=True)
class Stable:
    """Stop when each of the last `window` samples (or probes) gave the same answer.

    Unlike early-stopping self-consistency it looks after each sample, at a window that slides.

    Attributes:
        window: answers that must agree, none of them missing.
    """

    window: int = 3

    def __post_init__(self) -> None:
        require("stable", "window", self.window, "2 or more", self.window >= 2)

    def decide(self, votes: Votes) -> Verdict:
        """Value: share of the window that gave the last answer; 0 where the last gave none."""
        value = last_agreement(votes, self.window)
        return certain_if(value == 1.0, value)


def last_agreement(votes: Votes, window: int) -> float:
    """Share of the last `window` places that hold the very last answer; missing ones hold none."""
    last = votes.history[-window:]
    if not last or last[-1] is None:
        return 0.0
    return last.count(last[-1]) / window
