"""Which half of a set's questions may tune a rule; the other half measures it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def tuning_half(queries: Iterable[str]) -> set[str]:
    """The questions with the smaller hashes, half of them (one more where their number is odd).

    By rank and not by parity of the hash, so that a set of 30 questions gives 15 and 15. Sets of the
    same questions fall into the same halves, so no question tunes one set and measures another.
    """
    ranked = sorted(queries, key=lambda query: sha256(query.encode()).hexdigest())
    return set(ranked[: (len(ranked) + 1) // 2])
