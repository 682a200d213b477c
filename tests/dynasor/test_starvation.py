"""The bound on waiting that `dynasor.scheduling.aging` states, for any arrivals and any policy."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor.scheduling.gang import Hints
from dynasor.scheduling.policies import POLICIES, GangSrpt, Place
from dynasor.scheduling.queue import Aging, GangQueue

PATIENCE = 10.0


class Youngest:
    """The worst policy for the old: whoever came last goes first."""

    name, by_request = "youngest", False

    def place(self, gang, at):
        return Place((-gang.arrival,))


class Erratic:
    """Changes its mind all the time."""

    name, by_request = "erratic", False

    def place(self, gang, at):
        return Place((hash((gang.id, at.now, gang.members)) % 97,), until=at.now + 1)


ANY_POLICY = [*POLICIES.values(), Youngest, Erratic]


@dataclass
class Promise:
    """What an aged gang was promised at one moment: the last of these members is in in time."""

    gang: str
    rank: int  # place of the gang by arrival
    members: set
    admissions: int = 0
    of_older: int = 0
    taken: int = 0


@dataclass
class Life:
    """A queue, and the promises that are open."""

    queue: GangQueue
    turns: int
    now: float = 0.0
    ranks: dict = field(default_factory=dict)
    promises: list = field(default_factory=list)
    running: list = field(default_factory=list)
    come: int = 0

    def add(self, gang, hints):
        self.come += 1
        item = f"{gang}{self.come}"
        self.queue.add(item, gang, item, hints)
        self.note_rank(item)

    def note_rank(self, item):
        self.ranks.setdefault(self.queue.gang_of(item), len(self.ranks))

    def promise(self):
        """Make a promise to every aged gang that waits."""
        by_gang = {}
        for item in self.queue:
            by_gang.setdefault(self.queue.gang_of(item), set()).add(item)
        for gang, members in by_gang.items():
            if self.now - gang.arrival >= PATIENCE:
                self.promises.append(Promise(gang.id, self.ranks[gang], members))

    def take(self):
        if self.queue.peek() is None:
            return
        item = self.queue.take()
        self.running.append(item)
        rank = self.ranks[self.queue.gang_of(item)]
        for promise in self.promises:
            promise.admissions += 1
            promise.of_older += rank < promise.rank
            promise.taken += rank == promise.rank
            promise.members.discard(item)
        self.settle()

    def settle(self):
        for promise in self.promises:
            # Siblings that came later or were given back may go before the last of these members;
            # they are members to be admitted as well.
            counted = promise.of_older + promise.taken
            still_open = bool(promise.members)
            assert promise.admissions <= self.turns * (counted + still_open) - still_open, promise
        self.promises = [promise for promise in self.promises if promise.members]

    def give_back(self, number):
        if self.running:
            self.queue.give_back(self.running.pop(number % len(self.running)))

    def end(self, number, served):
        items = [*self.running, *self.queue]
        if items:
            item = items[number % len(items)]
            if item in self.running:
                self.running.remove(item)
            self.queue.end(item, served, finished=served % 2 == 0)
            for promise in self.promises:
                promise.members.discard(item)
            self.promises = [promise for promise in self.promises if promise.members]


HINTS = st.builds(
    Hints,
    tokens=st.none() | st.integers(0, 5000),
    rank=st.none() | st.integers(-3, 3),
    deadline=st.none() | st.integers(-5, 60),
)
GANGS = st.none() | st.sampled_from("abcdefghij")
ACTIONS = st.one_of(
    st.tuples(st.just("add"), GANGS, HINTS),
    st.tuples(st.just("hint"), GANGS, HINTS),
    st.tuples(st.just("take"), st.integers(1, 5), st.none()),
    st.tuples(st.just("give_back"), st.integers(0, 20), st.none()),
    st.tuples(st.just("end"), st.integers(0, 20), st.integers(0, 900)),
    st.tuples(st.just("pass"), st.sampled_from([0, 1, 5, 12]), st.none()),
)


def act(life, action, first, second):
    if action == "add":
        life.add(first if first is not None else f"new{life.come}", second)
    elif action == "hint":
        life.queue.hint(str(first), second)
    elif action == "take":
        for _ in range(first):
            life.take()
    elif action == "give_back":
        life.give_back(first)
    elif action == "end":
        life.end(first, second)
    else:
        life.now += first
        life.queue.reconsider()
        life.promise()


def life_of(policy, turns):
    life = Life(queue=None, turns=turns)
    life.queue = GangQueue(policy(), lambda: life.now, aging=Aging(PATIENCE, turns))
    return life


@pytest.mark.parametrize("policy", ANY_POLICY, ids=lambda policy: policy.name)
@given(turns=st.integers(1, 5), actions=st.lists(ACTIONS, min_size=30, max_size=120))
@settings(max_examples=40, deadline=None)
def test_the_bound_holds_whatever_happens(policy, turns, actions):
    life = life_of(policy, turns)
    for action in actions:
        act(life, *action)
    life.now += 2 * PATIENCE  # all that still waits is aged: it gets in, too
    life.queue.reconsider()
    life.promise()
    due = len(life.queue)
    for number in range(due * turns):
        life.add(f"late{number}", Hints(tokens=0, rank=-9))
        life.take()
    assert not life.promises


def stream(aging, queries=400):
    """One long gang of 4, and at each admission two new short gangs: when are the 4 admitted?"""
    clock = [0.0]
    queue = GangQueue(GangSrpt(), lambda: clock[0], aging=aging)
    for number in range(4):
        queue.add(f"long{number}", "long", f"long{number}", Hints(tokens=50_000))
    admitted = []
    for number in range(queries):
        clock[0] += 1.0
        for twin in "ab":
            name = f"short{number}{twin}"
            queue.add(name, name, name, Hints(tokens=10))
        queue.reconsider()
        item = queue.take()
        if item.startswith("long"):
            admitted.append(number + 1)
        queue.end(item, 10, finished=True)
    return admitted


def test_without_the_guard_a_stream_of_short_gangs_starves_a_long_one():
    assert stream(aging=None) == []


@pytest.mark.parametrize(("turns", "admitted"), [(1, [10, 11, 12, 13]), (4, [13, 17, 21, 25])])
def test_with_the_guard_it_is_admitted_exactly_when_the_bound_says(turns, admitted):
    # Aged at second 10, with the 10th admission; then m = 4, and nobody is older.
    assert stream(Aging(PATIENCE, turns)) == admitted
    assert admitted[-1] == 9 + turns * 4


def test_members_that_are_given_back_get_their_turn_again():
    now = [0.0]
    queue = GangQueue(Youngest(), lambda: now[0], aging=Aging(PATIENCE, 3))
    queue.add("old", "old", "old")
    now[0] = 20.0
    taken = []
    for number in range(12):
        queue.add(f"new{number}", f"new{number}", f"new{number}")
        taken.append(queue.take())
        if taken[-1] == "old":
            queue.give_back("old")  # preempted at once, again and again
    assert [number for number, item in enumerate(taken, 1) if item == "old"] == [3, 6, 9, 12]


def test_an_oldest_gang_that_the_policy_prefers_anyway_has_had_its_turn():
    now = [0.0]
    queue = GangQueue(GangSrpt(), lambda: now[0], aging=Aging(PATIENCE, 2))
    for name, tokens in (("old", 10), ("next", 20), ("last", 30)):
        for number in range(2):
            queue.add(f"{name}{number}", name, f"{name}{number}", Hints(tokens=tokens))
    now[0] = 20.0
    assert queue.take() == "old0"
    queue.hint("old", Hints(tokens=500))
    assert queue.take() == "next0"  # and not old1: old has just had a turn of its own
    assert queue.take() == "old1"
