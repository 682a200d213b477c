"""The order of each policy, on cases small enough to see."""

import pytest

from dynasor.errors import ConfigError
from dynasor.scheduling.gang import Gang, Hints
from dynasor.scheduling.policies import POLICIES, Deadline, LeastAttained, Moment, parse_policy
from dynasor.scheduling.queue import GangQueue

AT = Moment(now=100.0, typical=50.0, pace=0.1)


def gang(name, arrival, waiting=1, **facts):
    return Gang(name, arrival, waiting=waiting, **facts)


# early: came first, served much, long; late: came last, short, due soon; lost: cannot make it.
EARLY = gang("early", 1.0, waiting=4, attained=3000, tokens=4000.0, attained_then=3000, rank=2.0)
MIDDLE = gang("middle", 2.0, attained=300, deadline=150.0)  # 50 tokens, 5 s: by 145
LATE = gang("late", 3.0, tokens=20.0, rank=-1.0, deadline=104.0)  # 2 s: by 102
LOST = gang("lost", 4.0, tokens=40.0, rank=0.5, deadline=103.0)  # 4 s: by 99
FRESH = gang("fresh", 5.0)


@pytest.mark.parametrize(
    ("policy", "order"),
    [
        ("fcfs", "early middle late lost fresh"),
        ("gang-fcfs", "early middle late lost fresh"),
        ("sjf-rank", "late middle fresh lost early"),
        ("least-attained", "late lost fresh middle early"),
        ("gang-srpt", "late lost middle fresh early"),
        ("deadline", "late middle fresh early lost"),
        ("feasible-srpt", "late middle fresh early lost"),
        ("default", "late lost middle fresh early"),
    ],
)
def test_the_order_of_a_policy(policy, order):
    place = parse_policy(policy).place
    gangs = [FRESH, LOST, LATE, MIDDLE, EARLY]
    ordered = sorted(gangs, key=lambda each: (place(each, AT).key, each.arrival))
    assert [each.id for each in ordered] == order.split()


@pytest.mark.parametrize(
    ("attained", "level"), [(0, 0), (255, 0), (256, 1), (767, 1), (768, 2), (1791, 2), (1792, 3)]
)
def test_levels_of_attained_service_double(attained, level):
    assert LeastAttained(256).place(gang("q", 7.0, attained=attained), AT).key == (level, 7.0)


@pytest.mark.parametrize("policy", ["deadline", "feasible-srpt"])
def test_a_place_holds_until_the_last_moment_to_start(policy):
    place = parse_policy(policy).place
    until = place(LATE, AT).until
    assert until == pytest.approx(102.0)
    assert place(LATE, AT._replace(now=until)).key == place(LATE, AT).key
    after = place(LATE, AT._replace(now=until + 1e-6))
    assert after.key > place(EARLY, AT).key
    assert after.until == float("inf")


@pytest.mark.parametrize("policy", ["deadline", "feasible-srpt"])
def test_in_the_queue_a_gang_falls_back_in_that_moment(policy):
    now = [0.0]
    queue = GangQueue(parse_policy(policy), lambda: now[0])
    queue.pace = 0.1
    queue.reconsider()
    queue.add("due", "due", "due", Hints(tokens=100, deadline=30.0))  # 10 s: by 20
    queue.add("free", "free", "free", Hints(tokens=500))
    for now[0], first in ((0.0, "due"), (20.0, "due"), (20.01, "free")):
        queue.reconsider()
        assert queue.peek() == first
    queue.hint("due", Hints(deadline=15.0))  # it has more time after all
    assert queue.peek() == "due"


def test_members_side_by_side_make_a_deadline_that_one_alone_would_miss():
    alone = gang("alone", 1.0, tokens=200.0, deadline=110.0)
    four = gang("four", 2.0, waiting=4, tokens=200.0, deadline=110.0)
    assert Deadline().place(alone, AT).key == (2, 200.0)
    assert Deadline().place(four, AT).key == (0, 105.0)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_found_by_its_name(name):
    assert parse_policy(name).name == name


def test_an_unknown_policy_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"scheduler\.policy = 'luck': there are default, .*fcfs"):
        parse_policy("luck")
