"""The votes of one query: the only thing that a stop rule looks at.

Samples arrive one at a time; each falls into a group of equivalent answers, or into none when no
answer could be read from it. Everything a rule needs is kept up to date in O(1) a vote (O(groups)
when the leader changes hands), so that a decision costs microseconds, whatever the number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

Number = TypeVar("Number", int, float)


@dataclass(slots=True)
class Votes:
    """Votes of one query so far, in the order in which its samples finished.

    Attributes:
        max_samples: samples that the full budget of this query allows.
        counts: finished samples a group, indexed by group id (ids are dense, first seen first).
        weights: sum of the vote weights a group, same index (equal to `counts` when unweighted).
        history: group id of each finished sample in order; None where it gave no answer.
        tokens: output tokens of each finished sample, in the same order.
        in_flight: samples of the query that run now (they cost tokens if the query stops).
    """

    max_samples: int
    counts: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    history: list[int | None] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    in_flight: int = 0
    total_tokens: int = 0
    _leader: int | None = None

    def add(self, group: int | None, tokens: int, weight: float = 1.0) -> None:
        """Count one finished sample: its group (None: no answer), its output tokens, its weight.

        Raises:
            ValueError: if `group` skips an id, or `tokens` or `weight` is negative.
        """
        if group is not None and not 0 <= group <= len(self.counts):
            raise ValueError(f"group must be between 0 and {len(self.counts)}, not {group}")
        if tokens < 0 or not weight >= 0:
            raise ValueError(f"tokens and weight must be 0 or more, not {tokens} and {weight}")
        self.history.append(group)
        self.tokens.append(tokens)
        self.total_tokens += tokens
        if group is None:
            return
        if group == len(self.counts):
            self.counts.append(0)
            self.weights.append(0.0)
        self.counts[group] += 1
        self.weights[group] += weight
        # A tie keeps the group that led first, so the answer does not flicker between equals.
        if self._leader is None or self.weights[group] > self.weights[self._leader]:
            self._leader = group

    @property
    def n(self) -> int:
        """Finished samples, with and without an answer; those cut as improbable are among them."""
        return len(self.history)

    @property
    def answered(self) -> int:
        """Finished samples that gave an answer."""
        return sum(self.counts)

    @property
    def leader(self) -> int | None:
        """Group with the largest weight; among equals the one that reached it first."""
        return self._leader

    @property
    def remaining(self) -> int:
        """Samples that the full budget still allows, those in flight included."""
        return max(0, self.max_samples - self.n)

    def top_two(self) -> tuple[int, int]:
        """Counts of the two largest groups, largest first; 0 where there is no such group."""
        return _largest_two(self.counts, 0)

    def heaviest_two(self) -> tuple[float, float]:
        """Weights of the two heaviest groups, heaviest first; 0 where there is no such group."""
        return _largest_two(self.weights, 0.0)


def _largest_two(values: list[Number], nothing: Number) -> tuple[Number, Number]:
    first = second = nothing
    for value in values:
        if value > first:
            first, second = value, first
        elif value > second:
            second = value
    return first, second
