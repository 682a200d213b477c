"""Queries that share the equivalence workers: none waits long for another, none takes too much."""

import threading
from contextlib import contextmanager

import pytest

from certaindex.equivalence import AnswerEquivalence
from certaindex.equivalence_share import QueryShare

TOWER = r"9^{9^{9^9}}"
ROOTS = (r"\sqrt{8}", [r"2\sqrt{2}"])


@contextmanager
def held(equivalence):
    """A worker that compares somebody's hostile answer all the while."""
    seat = equivalence._workers.take()
    try:
        yield seat
    finally:
        equivalence._workers.give_back(seat)


def test_a_query_waits_for_others_no_longer_than_its_patience_and_then_asks_free_workers_only():
    with AnswerEquivalence(deadline=20.0) as equivalence:
        query = QueryShare(equivalence, wait=0.05)
        with held(equivalence):
            assert query.same_as_any(*ROOTS) is None
            assert query.left.wait <= 0
            assert query.same_as_any(*ROOTS) is None
            assert query.same_as_any("0.5", ["x", "1/2"]) == 1  # the cheap rules need no worker
            assert equivalence.stats.slow == 0
        assert query.same_as_any(*ROOTS) == 0
        assert query.left.work < 10


def test_with_a_second_worker_a_query_does_not_wait_at_all():
    with AnswerEquivalence(deadline=20.0, workers=2) as equivalence, held(equivalence):
        assert QueryShare(equivalence, wait=0.0).same_as_any(*ROOTS) == 0


def test_a_hostile_query_uses_up_its_own_time_and_no_other_querys():
    with AnswerEquivalence(deadline=0.3) as equivalence:
        hostile, good = QueryShare(equivalence, work=0.2), QueryShare(equivalence)
        assert hostile.same_as_any(TOWER, ["x+1", "x+2", "x+3"]) is None
        assert hostile.left.work <= 0
        after = equivalence.stats
        assert after.timeouts == 1
        assert equivalence.worker_pid is not None  # started anew at the culprit's expense
        assert hostile.same_as_any(*ROOTS) is None
        assert hostile.same_as_any("0.5", ["1/2"]) == 0
        assert equivalence.stats.slow == after.slow
        equivalence.deadline = 20.0
        assert good.same_as_any(*ROOTS) == 0


def test_time_is_up_in_the_middle_of_a_call_too():
    with AnswerEquivalence(deadline=20.0) as equivalence:
        assert equivalence.same_as_any(*ROOTS) == 0
        query = QueryShare(equivalence, work=1e-9)
        assert query.same_as_any("x+1", [f"y+{n}" for n in range(50)]) is None
        assert equivalence.stats.slow == 1  # not one of the fifty
        assert equivalence.same(r"\sqrt{12}", r"2\sqrt{3}")


def test_several_workers_are_all_ended():
    with AnswerEquivalence(deadline=20.0, workers=2) as equivalence:
        with held(equivalence) as first:
            assert equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
            equivalence._workers.running(first)
        processes = [seat.process._popen for seat in equivalence._workers._seats]
    assert all(process.poll() is not None for process in processes)


def test_closing_waits_for_those_who_ask():
    equivalence = AnswerEquivalence(deadline=20.0)
    seat = equivalence._workers.take()
    closing = threading.Thread(target=equivalence.close)
    closing.start()
    assert closing.is_alive()
    equivalence._workers.give_back(seat)
    closing.join(timeout=30)
    assert not closing.is_alive()


def test_there_must_be_a_worker():
    with pytest.raises(ValueError, match="workers"):
        AnswerEquivalence(workers=0)
