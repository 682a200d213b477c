"""The queue of waiting requests, gang by gang, in the order of a policy, with a bound on waiting.

Only the gang to which something happened is placed anew, so a step costs a few heap operations,
whatever the length of the queue. All are placed anew only when the averages that places rest on have
drifted far. `dynasor.scheduling.aging` states the bound on waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import count
from math import inf
from typing import Any, Generic, TypeVar

from dynasor.scheduling.aging import Aging, Turns
from dynasor.scheduling.gang import Gang, Hints
from dynasor.scheduling.lazy_heap import LazyHeap
from dynasor.scheduling.line import Line
from dynasor.scheduling.policies import Moment, Place, Policy

__all__ = ["REMEMBERED", "Aging", "GangQueue"]

T = TypeVar("T", bound=Hashable)

LAPSE = 5.0
"""Seconds after which a gang without a member is forgotten: whoever uses its id again begins anew.

Long enough for a query to read an answer and send its next sample, which must find its gang's age."""
REMEMBERED = 10_000
"""Gangs without a member that are known at most."""
_MEMORY = 200  # finished requests that the running average of their length looks back on
_DRIFT = 0.25  # of an average, from which on all places are asked for again

# Places: key, serial, version, line. Places to be asked for again: when, version, line, place.
_Placed = tuple[tuple[float, ...], int, int, Line[Any]]
_Due = tuple[float, int, Line[Any], Place]


class GangQueue(Generic[T]):
    """Waiting requests of type `T`, and the facts of their gangs.

    Args:
        policy: orders the gangs.
        clock: seconds, never going back; virtual in a simulator.
        aging: the starvation guard, or None for none.
        ready: False for a request that should let others pass for now; asked of one member a gang.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        *,
        aging: Aging | None = None,
        ready: Callable[[T], bool] | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._turns = None if aging is None else Turns[T](aging, clock)
        self._ready = ready
        self._lines: dict[str, Line[T]] = {}  # by id of the gang
        self._idle: OrderedDict[str, float] = OrderedDict()  # known gangs without a member; since
        self._line_of: dict[T, Line[T]] = {}  # every member in hand, waiting or running
        self._queued: dict[int, Line[T]] = {}  # by serial: lines with a waiting member
        self._waiting = 0
        self._serials = count(1)
        self._versions = count(1)
        self._places: LazyHeap[_Placed] = LazyHeap(lambda entry: entry[3].version == entry[2])
        self._due: LazyHeap[_Due] = LazyHeap(lambda entry: entry[2].place is entry[3])
        self._head: T | None = None
        self._head_by_turn = False
        self._finished = 0
        self.typical = 100.0
        self.pace = 0.01
        self._settled = (self.typical, self.pace)  # when all gangs were last placed
        self.order_changed = False
        """Set when a gang's place changes or a member is taken; reset by who keeps an order."""

    # What happens to requests -----------------------------------------------------------------

    def add(self, item: T, gang: str | None, name: str, hints: Hints | None = None) -> None:
        """A request has come, which is not in hand yet.

        Args:
            item: the request.
            gang: id of its gang, None for a gang of its own.
            name: of the request, unique.
            hints: that came with it.
        """
        assert item not in self._line_of, f"{name} is in hand already"
        if gang is None or self._policy.by_request:
            gang = f"request/{name}"
        now = self._clock()
        self._forget_idle()
        line = self._lines.get(gang)
        if line is None:
            line = self._lines[gang] = Line(Gang(gang, now), next(self._serials))
        self._idle.pop(gang, None)
        if hints is not None:
            line.gang.take(hints, now)
        self._line_of[item] = line
        self._wait(item, line)

    def give_back(self, item: T) -> None:
        """A request that was taken waits again, before its siblings: preempted, or put off."""
        line = self._line_of[item]
        assert item not in line.items, "what waits cannot be given back"
        line.gang.running -= 1
        self._wait(item, line)
        line.items.move_to_end(item, last=False)

    def end(self, item: T, served: int = 0, finished: bool = False) -> None:
        """A request has ended or was cut, waiting or running; unknown ones are ignored.

        Args:
            item: the request.
            served: output tokens that it got.
            finished: it ran to its end, so its length teaches what requests typically take.
        """
        line = self._line_of.pop(item, None)
        if line is None:
            return
        gang = line.gang
        if item in line.items:
            self._leave(item, line)
        else:
            gang.running -= 1
        gang.attained += served
        if finished:
            self._finished += 1
            self.typical += (served - self.typical) / min(self._finished, _MEMORY)
        if gang.members:
            self._place(line)
        else:
            self._rest(line)

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang; of an unknown one they are ignored."""
        self._forget_idle()
        line = self._lines.get(gang)
        if line is not None:
            line.gang.take(hints, self._clock())
            if line.gang.members:
                self._place(line)

    # Who is next --------------------------------------------------------------------------------

    def peek(self) -> T | None:
        """The request to admit next, None if none waits that is ready.

        It stays until it is taken, unless something happens to a request or gang.
        """
        if self._head is None and self._waiting:
            self._replace_due()
            line = None if self._turns is None else self._turns.due(self._ready)
            self._head_by_turn = line is not None
            if line is None:
                accept = None if self._ready is None else self._may_go
                entry = self._places.first(accept)
                line = None if entry is None else entry[3]
            self._head = None if line is None else line.next()
        return self._head

    def take(self) -> T:
        """Admit the request that `peek` names.

        Raises:
            IndexError: if there is none.
        """
        item = self.peek()
        if item is None:
            raise IndexError("no request is ready")
        line = self._line_of[item]
        if self._turns is not None:
            self._turns.admitted(line, self._head_by_turn)
        self._leave(item, line)
        line.gang.running += 1
        self._place(line)
        self.order_changed = True
        return item

    def standing(self, item: T) -> tuple[float, ...]:
        """Sort key of a member in hand: the last in this order is the first to be preempted.

        Aged gangs, by arrival, stand before all others: so the order may also change as time passes.
        """
        line = self._line_of[item]
        if self._turns is not None and self._turns.is_aged(line):
            return (0, line.serial)
        assert line.place is not None, "who has a member has a place"
        return (1, *line.place.key, line.serial)

    def holds(self, item: T) -> bool:
        """Whether the request is in hand, waiting or running."""
        return item in self._line_of

    def gang_of(self, item: T) -> Gang:
        """Facts of a member's gang."""
        return self._line_of[item].gang

    def facts(self, gang: str) -> Gang | None:
        """Facts of a gang, None where it is not known."""
        self._forget_idle()
        line = self._lines.get(gang)
        return None if line is None else line.gang

    def reconsider(self) -> None:
        """Time has passed: choose anew, for what was not ready may be so, and gangs may have aged."""
        self._head = None
        self._replace_due()

    def __len__(self) -> int:
        return self._waiting

    def __contains__(self, item: T) -> bool:
        """Whether the request waits."""
        line = self._line_of.get(item)
        return line is not None and item in line.items

    def __iter__(self) -> Iterator[T]:
        """Waiting requests in the order of the policy, as of now; turns of the aged aside."""
        self._replace_due()
        for line in sorted(self._queued.values(), key=_position):
            yield from line.items

    # Places -------------------------------------------------------------------------------------

    def _wait(self, item: T, line: Line[T]) -> None:
        line.items[item] = None
        line.gang.waiting += 1
        self._waiting += 1
        if line.gang.waiting == 1:
            self._queued[line.serial] = line
            if self._turns is not None:
                self._turns.begin(line)
        self._place(line)

    def _leave(self, item: T, line: Line[T]) -> None:
        del line.items[item]
        line.gang.waiting -= 1
        self._waiting -= 1
        self._head = None
        if not line.items:
            del self._queued[line.serial]
            line.version = line.spell = 0

    def _place(self, line: Line[T]) -> None:
        """Ask the policy for the gang's place."""
        self._head = None
        place = self._policy.place(line.gang, Moment(self._clock(), self.typical, self.pace))
        moved = place != line.place
        if moved:
            line.place = place
            self.order_changed = True
            if place.until != inf:
                self._due.push((place.until, next(self._versions), line, place))
        if line.items and (moved or not line.version):
            line.version = next(self._versions)
            self._places.push((place.key, line.serial, line.version, line))

    def _replace_due(self) -> None:
        """Place anew whose places are out of date: by time, or because the averages drifted."""
        now = self._clock()
        while (due := self._due.first()) is not None and due[0] < now:
            self._due.pop()
            self._place(due[2])
        typical, pace = self._settled
        if abs(self.typical - typical) > _DRIFT * typical or abs(self.pace - pace) > _DRIFT * pace:
            self._settled = (self.typical, self.pace)
            for line in self._lines.values():
                if line.gang.members:
                    self._place(line)

    def _may_go(self, entry: _Placed) -> bool:
        return self._ready is None or self._ready(entry[3].next())

    def _rest(self, line: Line[T]) -> None:
        """A gang without a member is remembered for a while, a single request is not."""
        line.place = None
        if self._policy.by_request:
            del self._lines[line.gang.id]
        else:
            self._idle[line.gang.id] = self._clock()
            self._forget_idle()

    def _forget_idle(self) -> None:
        """Forget gangs that had no member for too long, or are too many, longest idle first."""
        lapsed = self._clock() - LAPSE
        while self._idle and (
            len(self._idle) > REMEMBERED or next(iter(self._idle.values())) < lapsed
        ):
            del self._lines[self._idle.popitem(last=False)[0]]


def _position(line: Line[Any]) -> tuple[tuple[float, ...], int]:
    assert line.place is not None, "who waits has a place"
    return line.place.key, line.serial
