"""Several endpoints share one limit, whoever of them or the one that tells them dies."""

from hypothesis import given
from hypothesis import strategies as st

from serving.admission_share import FORGOTTEN, SETTLING, GlobalView, Report, share


def test_by_hand():
    reports = {"a": Report(3, 100.0), "b": Report(1, 50.0)}
    assert share(reports, "a", 10, None) == 3 + 3
    assert share(reports, "b", 10, None) == 1 + 3
    assert share(reports, "a", 5, None) == 3 + 1  # the odd place goes to the first
    assert share(reports, "b", 5, None) == 1
    assert share(reports, "a", 2, None) == 3  # more are there than may be: none is thrown out
    assert share(reports, "a", 10, 150.0) == 3
    assert share(reports, "a", 10, 151.0) == 6
    # What another may still use is not given away.
    reports = {"a": Report(3, 100.0, 3), "b": Report(1, 50.0, 6)}
    assert share(reports, "a", 10, None) == 4
    assert share(reports, "b", 10, None) == 1 + 3


REPORTS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Report, st.integers(0, 50), st.floats(0, 1e6)),
    min_size=1,
)


@given(REPORTS, st.integers(1, 200), st.none() | st.floats(1, 1e6))
def test_the_shares_use_the_limit_and_never_exceed_it(reports, limit, tokens):
    shares = {name: share(reports, name, limit, tokens) for name in reports}
    here = sum(report.queries for report in reports.values())
    assert all(shares[name] >= report.queries for name, report in reports.items())
    full = tokens is not None and sum(r.expected for r in reports.values()) >= tokens
    assert sum(shares.values()) == (here if full else max(here, limit))


MOVES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60)


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@given(MOVES, st.integers(1, 20), st.booleans())
def test_endpoints_together_never_have_more_than_may_be_even_if_the_view_dies(moves, most, dies):
    """Each opens as many queries as it may and wants."""
    time = Time()
    view = GlobalView(time)
    limit, queries = dict.fromkeys("abc", most), dict.fromkeys("abc", 0)

    def report(name):
        limit[name] = view.report(name, queries[name], 0.0, limit[name], most, None)

    for name in "abcabc":  # all begin with the whole, until they know of each other
        report(name)
    time.now += SETTLING
    for number, (name, wanted) in enumerate(moves):
        if dies and number == len(moves) // 2:
            view = GlobalView(time)
            for each in "cab":
                report(each)
            time.now += SETTLING
        queries[name] = min(wanted, limit[name])
        report(name)
        assert sum(queries.values()) <= sum(limit.values()) <= most
    for name in "abcabcabc":
        report(name)
    assert sum(limit.values()) == most  # no place is left unused


def test_an_endpoint_that_is_gone_gives_its_part_back():
    time = Time()
    view = GlobalView(time)
    time.now = SETTLING
    assert view.report("a", 0, 0.0, 10, 10, None) == 10
    assert view.report("b", 4, 0.0, 10, 10, None) == 4  # which it has already; the others are taken
    assert view.report("a", 0, 0.0, 10, 10, None) == 3
    assert view.report("b", 4, 0.0, 4, 10, None) == 4 + 3
    time.now += FORGOTTEN + 0.1
    assert view.report("a", 0, 0.0, 3, 10, None) == 10
    view.leave("a")
    view.leave("a")
    assert view.report("c", 0, 0.0, 10, 10, None) == 10


def test_a_new_view_knows_all_again_after_each_endpoint_has_reported():
    time = Time()
    new = GlobalView(time)
    assert new.report("b", 3, 0.0, 4, 10, None) == 4  # though it knows of nobody else yet
    assert new.report("a", 5, 0.0, 6, 10, None) == 6
    assert new.report("b", 1, 0.0, 4, 10, None) == 1 + 2  # its part of what is free
    time.now += SETTLING
    assert new.report("a", 5, 0.0, 6, 10, None) == 5 + 2
    assert new.report("b", 1, 0.0, 3, 10, None) == 3


def test_a_new_version_brings_its_limits():
    time = Time()
    view = GlobalView(time)
    time.now = SETTLING
    assert view.report("old", 2, 900.0, 4, 4, None) == 4
    view.leave("old")
    assert view.report("new", 2, 900.0, 8, 8, None) == 8
    assert view.report("new", 2, 900.0, 8, 8, 500.0) == 2
