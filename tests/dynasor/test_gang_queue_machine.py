"""The queue of gangs against a plain reference that sorts everything at each step."""

import itertools
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dynasor.scheduling import queue as queue_module
from dynasor.scheduling.gang import Gang, Hints
from dynasor.scheduling.policies import POLICIES, Fcfs, Moment
from dynasor.scheduling.queue import GangQueue
from tests.dynasor.gang_facts import Clock, vars_of


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
