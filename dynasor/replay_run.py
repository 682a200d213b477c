"""The replay of one query in one order."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from certaindex.early_cut import CutSamples
from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.recorded_query import RecordedQuery, is_right
from dynasor.replay_results import Run


def run_query(
    query: RecordedQuery,
    order: Sequence[int],
    rule: StopRule,
    wave: int,
    full: int | None,
    weights: Sequence[float] | None = None,
    lost_at: Sequence[int | None] | None = None,
    look_every: int = 1,
) -> Run:
    """One query in one order, `wave` samples in flight, until the rule stops it.

    Args:
        query: recorded samples.
        order: of the samples; they are the full budget.
        rule: when to stop.
        wave: samples in flight.
        full: answer of the full budget in the same order.
        weights: of the samples' votes, in the order of the file; 1 each where None.
        lost_at: tokens after which each sample is cut (see `RecordedQuery.lost_at`), or None.
        look_every: tokens between two looks at a sample.
    """
    votes = Votes(max_samples=len(order))
    dense: dict[int, int] = {}  # the query's group -> the votes' group, first seen first
    running = _Running(query, order, lost_at)
    cut = CutSamples()
    reason, now = "complete", 0
    for _ in range(min(wave, len(order))):
        running.begin(0)
    while running:
        now, position, is_cut = running.pop()
        if is_cut and position == cut.spared:
            running.look_again(position, now + look_every)
            continue
        running.end(position, now)
        sample = order[position]
        votes.in_flight = len(running)
        if is_cut:
            cut.was_cut(position, running.spent(position, now), votes, running.positions())
        else:
            group = query.groups[sample]
            seen = None if group is None else dense.setdefault(group, len(dense))
            votes.add(seen, query.tokens[sample], 1.0 if weights is None else weights[sample])
            cut.has_ended(position, votes, running.positions(), running.begun)
        if votes.n == len(order):
            break
        if votes.n and (stop := rule.decide(votes).stop):
            reason = stop
            break
        if running.begun < len(order):
            running.begin(now)
    answer = None if votes.leader is None else list(dense)[votes.leader]
    return Run(is_right(query, answer), answer == full, running.tokens(now), votes.n, now, reason)


class _Running:
    """The samples of a query that decode one token a tick, and what all of its samples have taken.

    Attributes:
        begun: samples that were begun.
    """

    def __init__(
        self, query: RecordedQuery, order: Sequence[int], lost_at: Sequence[int | None] | None
    ) -> None:
        self.begun = 0
        self._tokens = [query.tokens[sample] for sample in order]
        self._lost_at = [None if lost_at is None else lost_at[sample] for sample in order]
        self._ends: list[tuple[int, int, bool]] = []  # heap: tick, position, whether it is cut then
        self._starts: list[int] = []
        self._ended = 0  # tokens of those that do not run any more

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, now: int) -> None:
        """The next sample of the order starts."""
        lost = self._lost_at[self.begun]
        length = self._tokens[self.begun] if lost is None else lost
        heappush(self._ends, (now + length, self.begun, lost is not None))
        self._starts.append(now)
        self.begun += 1

    def pop(self) -> tuple[int, int, bool]:
        """The next to end: tick, position, whether it is to be cut."""
        return heappop(self._ends)

    def look_again(self, position: int, tick: int) -> None:
        """A sample that was to be cut goes on, to its end or at least until then."""
        end = self._starts[position] + self._tokens[position]
        heappush(self._ends, (min(tick, end), position, tick < end))

    def end(self, position: int, now: int) -> None:
        """A sample does not run any more."""
        self._ended += self.spent(position, now)

    def spent(self, position: int, now: int) -> int:
        """Tokens that a sample has taken."""
        return now - self._starts[position]

    def positions(self) -> list[int]:
        """Samples that run."""
        return [position for _, position, _ in self._ends]

    def tokens(self, now: int) -> int:
        """Of all samples, if those that run are cut now."""
        return self._ended + sum(self.spent(position, now) for position in self.positions())
