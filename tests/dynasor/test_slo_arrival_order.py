"""What is known of queries comes out in the order in which they began, whole and once."""

from hypothesis import given
from hypothesis import strategies as st

from dynasor.slo.arrival_order import ArrivalOrder


def test_a_quick_query_waits_for_a_slow_one_that_began_before_it():
    order = ArrivalOrder[str, int]()
    order.begin("slow")
    order.begin("quick")
    assert order.end("quick", 1) == []
    order.begin("last")
    assert order.end("slow", 2) == [("slow", 2), ("quick", 1)]
    assert order.end("last", 3) == [("last", 3)]


def test_one_of_which_nothing_is_known_is_left_out_and_holds_nobody_up():
    order = ArrivalOrder[str, int]()
    order.begin("left")
    order.begin("quick")
    assert order.end("quick", 1) == []
    assert order.end("left", None) == [("quick", 1)]


def test_a_query_that_never_began_or_ends_twice_has_no_effect():
    order = ArrivalOrder[str, int]()
    assert order.end("unknown", 1) == []
    order.begin("once")
    assert order.end("once", 1) == [("once", 1)]
    assert order.end("once", 2) == []


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_whatever_the_order_of_ending_all_come_out_in_order_of_beginning(ended, unknown):
    order = ArrivalOrder[int, int]()
    for query in range(12):
        order.begin(query)
    found, open_ = [], set(range(12))
    for query in ended:
        due = order.end(query, None if query in unknown else query)
        open_.discard(query)
        assert all(each < min(open_, default=12) for each, _ in due)
        found += due
    assert found == [(query, query) for query in range(12) if query not in unknown]
