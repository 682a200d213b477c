"""The queue of waiting requests, gang by gang, in the order of a policy, with a bound on waiting.

Only the gang to which something happened is placed anew, so a step costs a few heap operations,
whatever the length of the queue.

**No starvation.** A gang that is older than `patience` seconds is aged. While an aged gang waits, at
least one in `turns` admissions goes to the oldest gang. Gangs that came later can therefore delay it
by a constant factor only. The bound: if from some moment on an aged gang has m members to be
admitted, and the gangs that came before it A, then the last of the m is admitted with the
`turns * (A + m)`-th admission at the latest, however many other gangs come and whatever the policy
prefers. (Each turn of the oldest admits one of these A + m requests, until none is left.)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sized
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, NamedTuple, TypeVar

from dynasor.scheduling.gang import Gang, Hints
from dynasor.scheduling.policies import Moment, Place, Policy

T = TypeVar("T", bound=Hashable)

REMEMBERED = 10_000
"""Gangs without a member that are still known, so that a next sample finds its gang's age."""
_MEMORY = 200  # finished requests that the running average of their length looks back on


@dataclass(frozen=True, slots=True)
class Aging:
    """The starvation guard.

    Attributes:
        patience: age in seconds from which a gang is guaranteed its turns.
        turns: one in so many admissions goes to the oldest gang, if that is aged; 1 or more.
    """

    patience: float = 60.0
    turns: int = 4

    def __post_init__(self) -> None:
        if self.patience < 0 or self.turns < 1:
            raise ValueError(
                f"patience must be 0 or more and turns 1 or more, not {self.patience}, {self.turns}"
            )


class _Entry(NamedTuple):
    key: tuple[float, ...]
    arrival: float
    name: str
    version: int


class GangQueue(Generic[T]):
    """Waiting requests of type `T`, and the facts of their gangs.

    Args:
        policy: orders the gangs.
        clock: seconds; virtual in a simulator.
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
        self._aging = aging
        self._ready = ready
        self._gangs: dict[str, Gang] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()  # known gangs without a member
        self._items: dict[str, deque[T]] = {}  # gang -> waiting members, next first
        self._gang_of: dict[T, str] = {}  # every member in hand, waiting or running
        self._waiting = 0
        self._versions: dict[str, int] = {}
        self._places: dict[str, Place] = {}
        self._heap: list[_Entry] = []  # by place; entries of an old version are void
        self._ages: list[tuple[float, str]] = []  # by arrival; gangs that do not wait are void
        self._due: list[tuple[float, str, int]] = []  # when a place is to be asked for again
        self._others = 0  # admissions since the oldest gang had its turn
        self._head: T | None = None
        self._finished = 0
        self.typical = 100.0
        self.pace = 0.01
        self.order_changed = False
        """Set when a gang's place changes or a member is taken; reset by who keeps an order."""

    # What happens to requests -----------------------------------------------------------------

    def add(self, item: T, gang: str | None, name: str, hints: Hints | None = None) -> None:
        """A request has come.

        Args:
            item: the request.
            gang: id of its gang, None for a gang of its own.
            name: of the request, unique.
            hints: that came with it.
        """
        if gang is None or self._policy.by_request:
            gang = f"request/{name}"
        now = self._clock()
        known = self._gangs.get(gang)
        if known is None:
            known = self._gangs[gang] = Gang(gang, now)
            self._versions[gang] = 0
        self._idle.pop(gang, None)
        if hints is not None:
            known.take(hints, now)
        self._gang_of[item] = gang
        self._wait(item, known, front=False)

    def give_back(self, item: T) -> None:
        """A request that was taken waits again, before its siblings: preempted, or put off."""
        gang = self._gangs[self._gang_of[item]]
        gang.running -= 1
        self._wait(item, gang, front=True)

    def end(self, item: T, served: int = 0, finished: bool = False) -> None:
        """A request has ended or was cut, waiting or running; unknown ones are ignored.

        Args:
            item: the request.
            served: output tokens that it got.
            finished: it ran to its end, so its length teaches what requests typically take.
        """
        name = self._gang_of.pop(item, None)
        if name is None:
            return
        gang = self._gangs[name]
        if not self._leave(item, gang):
            gang.running -= 1
        gang.attained += served
        if finished:
            self._finished += 1
            self.typical += (served - self.typical) / min(self._finished, _MEMORY)
        if gang.members:
            self._place(gang)
        else:
            self._rest(gang)

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang; of an unknown one they are ignored."""
        known = self._gangs.get(gang)
        if known is not None:
            known.take(hints, self._clock())
            if known.members:
                self._place(known)

    # Who is next --------------------------------------------------------------------------------

    def peek(self) -> T | None:
        """The request to admit next, None if none waits that is ready; stays until taken."""
        if self._head is None and self._waiting:
            self._replace_due()
            oldest = self._oldest_if_due()
            self._head = oldest if oldest is not None else self._first_ready()
        return self._head

    def take(self) -> T:
        """Admit the request that `peek` names.

        Raises:
            IndexError: if there is none.
        """
        item = self.peek()
        if item is None:
            raise IndexError("no request is ready")
        gang = self._gangs[self._gang_of[item]]
        self._count_turn(gang)
        self._leave(item, gang)
        gang.running += 1
        self._place(gang)
        self.order_changed = True
        return item

    def standing(self, item: T) -> tuple[float, ...]:
        """Sort key of a member in hand: the last in this order is the first to be preempted.

        Aged gangs, by arrival, stand before all others.
        """
        gang = self._gangs[self._gang_of[item]]
        if self._is_aged(gang.arrival):
            return (0, gang.arrival)
        return (1, *self._places[gang.id].key, gang.arrival)

    def holds(self, item: T) -> bool:
        """Whether the request is in hand, waiting or running."""
        return item in self._gang_of

    def gang_of(self, item: T) -> Gang:
        """Facts of a member's gang."""
        return self._gangs[self._gang_of[item]]

    def facts(self, gang: str) -> Gang | None:
        """Facts of a gang, None where it is not known."""
        return self._gangs.get(gang)

    def reconsider(self) -> None:
        """Time has passed: choose anew, for what was not ready may be so, and gangs may have aged."""
        self._head = None
        self._replace_due()

    def __len__(self) -> int:
        return self._waiting

    def __contains__(self, item: T) -> bool:
        name = self._gang_of.get(item)
        return name is not None and item in self._items.get(name, ())

    def __iter__(self) -> Iterator[T]:
        """Waiting requests in the order of the policy, as of now."""
        names = sorted(
            (name for name, items in self._items.items() if items),
            key=lambda name: (self._places[name].key, self._gangs[name].arrival, name),
        )
        for name in names:
            yield from self._items[name]

    # Places -------------------------------------------------------------------------------------

    def _wait(self, item: T, gang: Gang, *, front: bool) -> None:
        items = self._items.setdefault(gang.id, deque())
        if front:
            items.appendleft(item)
        else:
            items.append(item)
        gang.waiting += 1
        self._waiting += 1
        if gang.waiting == 1:
            heappush(self._ages, (gang.arrival, gang.id))
            if self._is_bloated(self._ages):
                self._ages = [(g.arrival, g.id) for g in self._gangs.values() if g.waiting]
                heapify(self._ages)
        self._place(gang)

    def _leave(self, item: T, gang: Gang) -> bool:
        """Take a request out of those that wait; False if it is not among them."""
        items = self._items.get(gang.id)
        if not items or item not in items:
            return False
        items.remove(item)
        gang.waiting -= 1
        self._waiting -= 1
        self._head = None
        return True

    def _place(self, gang: Gang) -> None:
        """Ask the policy for the gang's place."""
        self._head = None
        place = self._policy.place(gang, Moment(self._clock(), self.typical, self.pace))
        if self._places.get(gang.id) != place:
            self.order_changed = True
        elif gang.waiting > 1:
            return  # it waited before at this very place
        self._places[gang.id] = place
        version = self._versions[gang.id] = self._versions[gang.id] + 1
        if gang.waiting:
            heappush(self._heap, _Entry(place.key, gang.arrival, gang.id, version))
            if self._is_bloated(self._heap):
                self._heap = [entry for entry in self._heap if self._is_valid(entry)]
                heapify(self._heap)
        if place.until != inf:
            heappush(self._due, (place.until, gang.id, version))
            if self._is_bloated(self._due):
                self._due = [due for due in self._due if self._versions.get(due[1]) == due[2]]
                heapify(self._due)

    def _is_bloated(self, heap: Sized) -> bool:
        """Whether most entries of a heap are void."""
        return len(heap) > 4 * len(self._gangs) + 64

    def _replace_due(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] < now:
            _, name, version = heappop(self._due)
            if self._versions.get(name) == version and self._gangs[name].members:
                self._place(self._gangs[name])

    def _is_valid(self, entry: _Entry) -> bool:
        return self._versions.get(entry.name) == entry.version and bool(self._items.get(entry.name))

    def _first_ready(self) -> T | None:
        """The next member of the first gang that has one which is ready."""
        passed: list[_Entry] = []
        found = None
        while self._heap:
            entry = self._heap[0]
            if self._is_valid(entry):
                item = self._items[entry.name][0]
                if self._ready is None or self._ready(item):
                    found = item
                    break
                passed.append(entry)
            heappop(self._heap)
        for entry in passed:
            heappush(self._heap, entry)
        return found

    def _rest(self, gang: Gang) -> None:
        """A gang without a member is remembered for a while."""
        self._items.pop(gang.id, None)
        self._idle[gang.id] = None
        if self._policy.by_request or len(self._idle) > REMEMBERED:
            name, _ = self._idle.popitem(last=self._policy.by_request)
            del self._gangs[name], self._versions[name]
            self._places.pop(name, None)

    # Aging --------------------------------------------------------------------------------------

    def _is_aged(self, arrival: float) -> bool:
        return self._aging is not None and self._clock() - arrival >= self._aging.patience

    def _oldest(self) -> Gang | None:
        """The oldest gang that waits, if it is aged."""
        while self._ages:
            arrival, name = self._ages[0]
            if not self._items.get(name):
                heappop(self._ages)
                continue
            return self._gangs[name] if self._is_aged(arrival) else None
        return None

    def _oldest_if_due(self) -> T | None:
        if self._aging is None or self._others < self._aging.turns - 1:
            return None
        oldest = self._oldest()
        if oldest is None:
            return None
        item = self._items[oldest.id][0]
        return item if self._ready is None or self._ready(item) else None

    def _count_turn(self, gang: Gang) -> None:
        """Who was admitted: the oldest, or another one while the oldest is aged and waits."""
        oldest = self._oldest() if self._aging is not None else None
        self._others = 0 if oldest is None or oldest is gang else self._others + 1
