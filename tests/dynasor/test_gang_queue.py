"""The queue of gangs against a plain reference that sorts everything at each step."""

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dynasor.scheduling import queue as queue_module
from dynasor.scheduling.gang import Gang, Hints
from dynasor.scheduling.policies import POLICIES, Fcfs, GangFcfs, GangSrpt, Moment, Place, SjfRank
from dynasor.scheduling.queue import Aging, GangQueue


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class Known:
    """What the reference knows of a gang."""

    facts: Gang
    serial: int
    waiting: list = field(default_factory=list)
    running: list = field(default_factory=list)
    idle_since: float | None = None


class Reference:
    """The contract of the queue, without any heap."""

    def __init__(self, policy, clock):
        self.policy, self.clock, self.gangs = policy, clock, {}
        self.serials = itertools.count()

    def forget(self):
        lapsed = self.clock() - queue_module.LAPSE
        idle = [(known.idle_since, name) for name, known in self.gangs.items()]
        for name in [name for since, name in idle if since is not None and since < lapsed]:
            del self.gangs[name]

    def add(self, item, gang, hints):
        self.forget()
        name = f"request/{item}" if gang is None or self.policy.by_request else gang
        if name not in self.gangs:
            self.gangs[name] = Known(Gang(name, self.clock()), next(self.serials))
        known = self.gangs[name]
        known.idle_since = None
        known.facts.take(hints, self.clock())
        known.waiting.append(item)

    def of(self, item):
        return next(k for k in self.gangs.values() if item in k.waiting + k.running)

    def order(self):
        for known in self.gangs.values():
            known.facts.waiting, known.facts.running = len(known.waiting), len(known.running)
        at = Moment(self.clock(), 100.0, 0.01)
        ordered = sorted(
            (known for known in self.gangs.values() if known.waiting),
            key=lambda known: (self.policy.place(known.facts, at).key, known.serial),
        )
        return [item for known in ordered for item in known.waiting]

    def take(self, item):
        known = self.of(item)
        known.waiting.remove(item)
        known.running.append(item)

    def give_back(self, item):
        known = self.of(item)
        known.running.remove(item)
        known.waiting.insert(0, item)

    def end(self, item, served):
        known = self.of(item)
        (known.waiting if item in known.waiting else known.running).remove(item)
        known.facts.attained += served
        if not known.waiting and not known.running:
            known.idle_since = self.clock()
        if self.policy.by_request:
            del self.gangs[known.facts.id]


HINTS = st.builds(
    Hints,
    tokens=st.none() | st.integers(0, 5000),
    rank=st.none() | st.integers(-3, 3),
    certainty=st.none() | st.floats(0, 1),
    deadline=st.none() | st.integers(-5, 60),
)
GANGS = st.sampled_from("abcdef")


class QueueMachine(RuleBasedStateMachine):
    """Random life of a queue; after each event, head, order and counts are the reference's."""

    policy = Fcfs()

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.unready = set()
        self.queue = GangQueue(self.policy, self.clock, ready=lambda item: item not in self.unready)
        self.reference = Reference(self.policy, self.clock)
        self.names = itertools.count()
        self.running = []

    def waiting(self):
        return self.reference.order()

    @rule(gang=GANGS | st.none(), hints=HINTS)
    def add(self, gang, hints):
        item = next(self.names)
        self.queue.add(item, gang, str(item), hints)
        self.reference.add(item, gang, hints)

    @rule(gang=GANGS, hints=HINTS)
    def hint(self, gang, hints):
        self.queue.hint(gang, hints)
        self.reference.forget()
        if gang in self.reference.gangs:
            self.reference.gangs[gang].facts.take(hints, self.clock())

    @rule(seconds=st.sampled_from([0.5, 1, 7, 30]))
    def pass_time(self, seconds):
        self.clock.now += seconds
        self.queue.reconsider()

    @rule()
    def take(self):
        if self.queue.peek() is not None:
            item = self.queue.take()
            self.reference.take(item)
            self.running.append(item)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def give_back(self, data):
        item = data.draw(st.sampled_from(self.running))
        self.running.remove(item)
        self.queue.give_back(item)
        self.reference.give_back(item)

    @precondition(lambda self: self.running or self.waiting())
    @rule(data=st.data(), served=st.integers(0, 900))
    def end(self, data, served):
        item = data.draw(st.sampled_from(self.running + self.waiting()))
        if item in self.running:
            self.running.remove(item)
        self.queue.end(item, served)
        self.queue.end(item, served)  # the second time it is unknown
        self.reference.end(item, served)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def hold_or_release(self, data):
        self.unready ^= {data.draw(st.sampled_from(self.waiting()))}
        self.queue.reconsider()

    @invariant()
    def same(self):
        order = self.waiting()
        # One member a gang is asked, so one that is not ready holds its siblings.
        heads = [item for item in order if self.reference.of(item).waiting[0] == item]
        head = next((item for item in heads if item not in self.unready), None)
        assert self.queue.peek() == head
        assert list(self.queue) == order
        assert self.queue.peek() == head  # looking changes nothing
        self.reference.forget()
        assert all(
            self.queue.facts(gang) is None for gang in set("abcdef") - {*self.reference.gangs}
        )
        assert len(self.queue) == len(order)
        assert all(item in self.queue and self.queue.holds(item) for item in order)
        assert all(item not in self.queue and self.queue.holds(item) for item in self.running)
        for known in self.reference.gangs.values():
            facts = self.queue.facts(known.facts.id)
            assert vars_of(facts) == vars_of(known.facts)
        by_standing = sorted(order + self.running, key=self.queue.standing)
        assert [item for item in by_standing if self.queue.gang_of(item).waiting] == sorted(
            [item for item in order + self.running if self.queue.gang_of(item).waiting],
            key=lambda item: order.index(self.reference.of(item).waiting[0]),
        )


def vars_of(gang):
    return {name: getattr(gang, name) for name in Gang.__slots__}


def machine_for(policy_type):
    machine = type(f"Machine_{policy_type.__name__}", (QueueMachine,), {"policy": policy_type()})
    case = machine.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
    return case


TestFcfs, TestGangFcfs, TestSjfRank, TestLeastAttained, TestGangSrpt, TestDeadline, TestFeasible = (
    machine_for(policy) for policy in POLICIES.values()
)


def test_every_policy_is_run_against_the_reference():
    tested = [TestFcfs, TestGangFcfs, TestSjfRank, TestLeastAttained, TestGangSrpt]
    assert len({*tested, TestDeadline, TestFeasible}) == len(POLICIES)


def filled(policy, gangs, **options):
    """A queue with the requests of some gangs, in this order: "ab" is b's request 1 after a's 0."""
    clock = Clock()
    queue = GangQueue(policy, clock, **options)
    for number, gang in enumerate(gangs):
        queue.add(f"{gang}{number}", gang, f"{gang}{number}")
    return queue, clock


def test_requests_of_one_moment_go_in_the_order_in_which_they_came():
    queue, _ = filled(Fcfs(), "a" * 12)  # by name, a10 would come before a2
    assert [queue.take() for _ in range(12)] == [f"a{n}" for n in range(12)]


def test_the_head_stays_while_time_passes_and_changes_with_news():
    queue, clock = filled(GangSrpt(), "ab")
    assert queue.peek() == "a0"
    clock.now += 1000
    assert queue.peek() == "a0"
    queue.hint("b", Hints(tokens=20))
    assert queue.peek() == "b1"
    assert queue.take() == "b1"


def test_what_is_not_ready_lets_other_gangs_pass_and_keeps_its_place():
    unready = {"a0"}
    queue, _ = filled(GangFcfs(), "aab", ready=lambda item: item not in unready)
    assert queue.take() == "b2"
    assert queue.peek() is None
    with pytest.raises(IndexError, match="ready"):
        queue.take()
    unready.clear()
    assert [queue.take(), queue.take()] == ["a0", "a1"]


def test_an_oldest_gang_that_is_not_ready_leaves_its_turn_to_the_next_oldest():
    queue, clock = filled(
        SmallestLast(), "abcd", aging=Aging(10, 2), ready=lambda item: item != "a0"
    )
    clock.now = 20
    queue.add("y", "y", "y")
    queue.add("z", "z", "z")
    assert [queue.take() for _ in range(4)] == ["z", "b1", "y", "c2"]


def test_a_gang_that_comes_back_keeps_its_age_until_it_is_forgotten(monkeypatch):
    monkeypatch.setattr(queue_module, "REMEMBERED", 2)
    queue, clock = filled(GangFcfs(), "a")
    queue.end("a0")
    clock.now = 5
    queue.add("b", "b", "b")
    queue.add("again", "a", "again")
    assert queue.facts("a").arrival == 0
    assert queue.peek() == "again"
    queue.end("again")
    for name in "xyz":  # a is the idle gang that was used least recently
        queue.add(name, name, name)
        queue.end(name)
    assert queue.facts("a") is None
    queue.add("new", "a", "new")
    assert queue.facts("a").arrival == 5
    assert queue.peek() == "b"


def test_who_uses_one_id_for_ever_does_not_keep_its_age():
    queue, clock = filled(SmallestLast(), "", aging=Aging(10, 1))
    for number in range(50):  # an answer is read for a while, then the next is asked for
        queue.add(f"first{number}", "a", f"first{number}", Hints(tokens=9, deadline=1))
        queue.end(f"first{number}", served=100)
        clock.now += queue_module.LAPSE
    assert queue.facts("a").arrival == 0
    clock.now += 0.1
    assert queue.facts("a") is None
    queue.hint("a", Hints(tokens=7))  # too late, as for any gang that is not known
    queue.add("again", "a", "again")
    assert vars_of(queue.facts("a")) == vars_of(Gang("a", clock.now, waiting=1))
    queue.add("b", "b", "b")
    clock.now += 9
    assert queue.take() == "b"  # a is not aged, and the policy prefers b
    clock.now += 1
    queue.add("c", "c", "c")
    assert queue.take() == "again"


def test_a_gang_with_a_member_lives_on():
    queue, clock = filled(GangFcfs(), "aa")
    assert queue.take() == "a0"
    for member in ("a0", "a1"):
        clock.now += 100 * queue_module.LAPSE
        queue.reconsider()
        assert queue.facts("a").arrival == 0
        queue.end(member)


def test_a_forgotten_gang_leaves_nothing_behind_that_its_namesake_could_inherit(monkeypatch):
    monkeypatch.setattr(queue_module, "REMEMBERED", 0)
    queue, clock = filled(GangSrpt(), "b", aging=Aging(10, 1))
    queue.hint("b", Hints(tokens=500))
    queue.add("old", "a", "old", Hints(tokens=1))
    queue.end("old")
    clock.now = 9
    queue.add("new", "a", "new", Hints(tokens=10_000))
    assert queue.peek() == "b0"
    queue.end("b0")
    queue.add("c", "c", "c", Hints(tokens=500))
    clock.now = 12  # the first gang a would be aged by now
    queue.reconsider()
    assert queue.peek() == "c"


def test_by_request_siblings_are_strangers():
    queue, _ = filled(SjfRank(), "aaa")
    queue.add("first", "a", "first", Hints(rank=-1))
    assert list(queue) == ["first", "a0", "a1", "a2"]
    assert queue.facts("a") is None
    assert queue.gang_of("a0").members == 1


def test_places_follow_what_requests_turn_out_to_take():
    queue, _ = filled(GangSrpt(), "aab")  # a: 2 x 100 expected, b: 100
    queue.hint("b", Hints(tokens=500))
    assert queue.peek() == "a0"
    for number in range(3):
        queue.add(f"x{number}", f"x{number}", f"x{number}")
        queue.end(f"x{number}", served=1000, finished=True)
    assert queue.typical == 1000
    assert queue.peek() == "b2"  # a: 2 x 1000


def test_a_running_order_is_marked_as_changed_only_when_it_may_have():
    queue, _ = filled(GangSrpt(), "ab")
    queue.order_changed = False
    queue.reconsider()
    queue.hint("a", Hints())
    assert not queue.order_changed
    queue.hint("a", Hints(tokens=7))
    assert queue.order_changed


def test_the_last_to_stand_are_members_of_the_gang_that_is_placed_last():
    queue, clock = filled(GangSrpt(), "aabb", aging=Aging(10, 4))
    running = [queue.take() for _ in range(4)]
    queue.hint("a", Hints(tokens=900))
    queue.hint("b", Hints(tokens=10))
    assert [item[0] for item in sorted(running, key=queue.standing)] == list("bbaa")
    clock.now = 11
    queue.add("c", "c", "c", Hints(tokens=0))
    assert [item[0] for item in sorted([*running, "c"], key=queue.standing)] == list("aabbc")


@pytest.mark.parametrize("policy", POLICIES)
def test_memory_stays_bounded(policy):
    rng = random.Random(1)
    queue, clock = filled(POLICIES[policy](), "", aging=Aging(5, 3))
    queue.add("stays", "stays", "stays", Hints(tokens=1e9, rank=1e9))
    queue.add("held", "held", "held")
    waiting, running, names = [], [], itertools.count()
    largest = 0
    for _ in range(100_000):
        clock.now += 0.01
        kind = rng.randrange(5)
        if kind == 0 and len(waiting) + len(running) < 100:
            waiting.append(next(names))
            hints = Hints(tokens=rng.random() * 1e4, deadline=rng.random() * 30)
            queue.add(waiting[-1], f"g{rng.randrange(50)}", str(waiting[-1]), hints)
        elif kind == 1:
            queue.hint(f"g{rng.randrange(50)}", Hints(tokens=rng.random() * 1e4, deadline=20.0))
        elif kind == 2 and running and rng.random() < 0.5:
            item = running.pop(rng.randrange(len(running)))
            queue.give_back(item)
            waiting.append(item)
        elif kind == 3:
            item = queue.take()
            if item in waiting:
                waiting.remove(item)
                running.append(item)
            else:
                queue.give_back(item)
        elif waiting or running:
            pool = running if running and (not waiting or rng.random() < 0.7) else waiting
            queue.end(pool.pop(rng.randrange(len(pool))), rng.randrange(999), finished=True)
        largest = max(largest, size_of(queue))
    assert next(names) > 10_000
    assert largest < 3000


def size_of(queue):
    """Entries in all tables of the queue, void ones included."""
    tables = [value for value in vars(queue).values() if hasattr(value, "__len__")]
    return sum(map(len, tables)) + len(queue._turns._ages)


class SmallestLast:
    """Whoever came last goes first: starves all others."""

    name, by_request = "smallest-last", False

    def place(self, gang, at):
        return Place((-gang.arrival, -ord(gang.id[0])))


@pytest.mark.parametrize("bad", [(-1, 4), (float("nan"), 4), (1, 0), (1, -2)])
def test_a_guard_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="patience must be 0 or more and turns 1 or more"):
        Aging(*bad)


@given(st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_turns_are_one_in_so_many(turns):
    queue, clock = filled(SmallestLast(), "a" * 20, aging=Aging(10, turns))
    clock.now = 10
    for number in range(200):
        queue.add(f"z{number}", "z", f"z{number}")
    taken = [queue.take()[0] for _ in range(20 * turns)]
    assert taken == (["z"] * (turns - 1) + ["a"]) * 20
