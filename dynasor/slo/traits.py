"""What is compared of queries, live ones with calibrated ones."""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """How a query ended by its rule.

    Attributes:
        certainty: agreement certaindex of the votes; 0 below two answers.
        agreement: votes of the leading answer over finished samples.
        samples: finished ones.
        sample_tokens: mean output tokens of the finished samples.
    """

    certainty: float
    agreement: float
    samples: float
    sample_tokens: float
