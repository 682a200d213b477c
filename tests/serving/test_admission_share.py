"""Several endpoints share one limit, whoever of them or the one that tells them dies."""

from hypothesis import given
from hypothesis import strategies as st

from serving.admission_share import FORGOTTEN, GlobalView, Report, share


def test_by_hand():
    reports = {"a": Report(3, 100.0), "b": Report(1, 50.0)}
    assert share(reports, "a", 10, None) == 3 + 3
    assert share(reports, "b", 10, None) == 1 + 3
    assert share(reports, "a", 5, None) == 3 + 1  # the odd place goes to the first
    assert share(reports, "b", 5, None) == 1
    assert share(reports, "a", 2, None) == 3  # more are there than may be: none is thrown out
    assert share(reports, "a", 10, 150.0) == 3
    assert share(reports, "a", 10, 151.0) == 6


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


def test_an_endpoint_that_is_gone_gives_its_part_back():
    now = 0.0
    view = GlobalView(10, None, lambda: now)
    assert view.report("a", 0, 0.0) == 10
    assert view.report("b", 4, 0.0) == 4 + 3
    assert view.report("a", 0, 0.0) == 3
    now = FORGOTTEN + 0.1
    assert view.report("a", 0, 0.0) == 10


def test_a_new_view_knows_all_again_after_one_round_of_reports():
    old, new = GlobalView(10, None, lambda: 0.0), GlobalView(10, None, lambda: 0.0)
    for view in (old, old, new):
        for name, queries in (("a", 5), ("b", 3)):
            last = view.report(name, queries, 0.0)
        assert last == 3 + 1
