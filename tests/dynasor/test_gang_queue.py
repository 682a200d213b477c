"""The queue of gangs, by hand: order, turns of the oldest, ages, memory."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor.scheduling import queue as queue_module
from dynasor.scheduling.gang import Gang, Hints
from dynasor.scheduling.policies import POLICIES, Fcfs, GangFcfs, GangSrpt, Place, SjfRank
from dynasor.scheduling.queue import Aging, GangQueue
from tests.dynasor.gang_facts import Clock, vars_of


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
