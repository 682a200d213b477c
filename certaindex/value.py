"""Value of the next sample, by which one budget is shared among many queries."""

from __future__ import annotations

from math import exp, sqrt

from certaindex.rules.learned import Experience, shipped
from certaindex.votes import Votes


def value_of_next_sample(votes: Votes, experience: Experience | None = None) -> float:
    """How urgent this query's next sample is; 0 where no sample remains.

    The odds at which the default rule would go on, over the square root of the tokens that a sample
    of this query takes on average so far. The root, and not the tokens themselves, because long
    samples are not only dear: they are the mark of a hard query, whose answer still changes. On the
    recorded sets dividing by the tokens lost more accuracy (`docs/results/stop_rules.md`).

    Only the order of queries by this value has a meaning: stopping all queries below one level is
    what the default rule does with one price for all, and a budget finds that level by itself.
    """
    if not votes.n or not votes.remaining:
        return 0.0
    tokens = max(votes.total_tokens / votes.n, 1.0)
    return exp((experience or shipped()).worth_of_more(votes)) / sqrt(tokens)
