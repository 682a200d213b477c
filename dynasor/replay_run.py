"""The replay of one query in one order, under any number of rules at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from certaindex.agreement import certaindex
from certaindex.early_cut import CutSamples
from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.recorded_query import RecordedQuery, is_right
from dynasor.replay_results import Run


class Ending(NamedTuple):
    """How a query ended under one rule.

    Attributes:
        answer: group of the leading answer, None where there is none.
        reason: why it stopped; `complete` where the budget was used up.
        samples: finished ones.
        tokens: of all samples, those that were cut included.
        sample_tokens: mean of the finished samples.
        latency: ticks until it stopped.
        certainty: agreement certaindex of the votes, 0 below two answers.
        agreement: votes of the leading answer over finished samples.
    """

    answer: int | None
    reason: str
    samples: int
    tokens: int
    sample_tokens: float
    latency: int
    certainty: float
    agreement: float


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
    """One query in one order under one rule, against the answer `full`; see `run_rules`."""
    return run_of(
        query, full, run_rules(query, order, [rule], wave, weights, lost_at, look_every)[0]
    )


def run_of(query: RecordedQuery, full: int | None, ending: Ending) -> Run:
    """What a replay counts of an ending, `full` being the full budget's answer."""
    return Run(
        is_right(query, ending.answer),
        ending.answer == full,
        ending.tokens,
        ending.samples,
        ending.latency,
        ending.reason,
    )


def run_rules(
    query: RecordedQuery,
    order: Sequence[int],
    rules: Sequence[StopRule],
    wave: int,
    weights: Sequence[float] | None = None,
    lost_at: Sequence[int | None] | None = None,
    look_every: int = 1,
) -> list[Ending]:
    """One query in one order, `wave` samples in flight, until each rule has stopped it.

    What runs when does not depend on the rule, but for its end. So one pass serves all rules.

    Args:
        query: recorded samples.
        order: of the samples; they are the full budget.
        rules: when to stop.
        wave: samples in flight.
        weights: of the samples' votes, in the order of the file; 1 each where None.
        lost_at: tokens after which each sample is cut (see `RecordedQuery.lost_at`), or None.
        look_every: tokens between two looks at a sample.

    Returns:
        how it ends under each rule.
    """
    votes = Votes(max_samples=len(order))
    dense: dict[int, int] = {}  # the query's group -> the votes' group, first seen first
    running = _Running(query, order, lost_at)
    cut = CutSamples()
    endings = _Endings(rules, votes, dense, running)
    now = 0
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
        if votes.n == len(order) or endings.all_stopped(now):
            break
        if running.begun < len(order):
            running.begin(now)
    return endings.complete(now)


class _Endings:
    """Which rules have stopped a query, and how."""

    def __init__(
        self, rules: Sequence[StopRule], votes: Votes, dense: Mapping[int, int], running: _Running
    ) -> None:
        self._waiting = dict(enumerate(rules))
        self._found: dict[int, Ending] = {}
        self._votes = votes
        self._dense = dense
        self._running = running

    def all_stopped(self, now: int) -> bool:
        """Ask the rules that have not stopped it; whether none is left."""
        if not self._votes.n:
            return False
        stopped = []
        for place, rule in self._waiting.items():
            reason = rule.decide(self._votes).stop
            if reason is not None:
                self._found[place] = self._ending(reason, now)
                stopped.append(place)
        for place in stopped:
            del self._waiting[place]
        return not self._waiting

    def complete(self, now: int) -> list[Ending]:
        """All endings, in the order of the rules; the budget is used up for those that are left."""
        for place in self._waiting:
            self._found[place] = self._ending("complete", now)
        return [self._found[place] for place in sorted(self._found)]

    def _ending(self, reason: str, now: int) -> Ending:
        votes = self._votes
        leader = votes.leader
        return Ending(
            answer=None if leader is None else list(self._dense)[leader],
            reason=reason,
            samples=votes.n,
            tokens=self._running.tokens(now),
            sample_tokens=votes.total_tokens / votes.n if votes.n else 0.0,
            latency=now,
            certainty=certaindex(votes.counts) or 0.0,
            agreement=0.0 if leader is None else votes.counts[leader] / votes.n,
        )


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
