"""What is certified is kept, over many splits; and where a promise stops being kept is found."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynasor.recorded_query import collect_queries
from dynasor.slo.capacity import boundary
from dynasor.slo.guarantee import certify
from dynasor.slo.outcomes import Outcomes, Setting, outcomes_of
from dynasor.slo.promise import QueryClass
from dynasor.slo.tables import OutcomeTables, Places, split_queries
from dynasor.traces import TraceSample

FULL = Setting("never", 8, 8)


class Drawn:
    """Outcomes of settings with known risks, in place of a replay; a query that is hard is hard for
    all settings."""

    def __init__(self, risks: Sequence[float], queries: int, seed: int) -> None:
        hard = np.random.default_rng(seed).random(queries)
        self.settings = [FULL, *(Setting(f"fixed:{n + 1}", 8, 8) for n in range(len(risks)))]
        lost = np.array([np.zeros(queries, bool), *(hard < risk for risk in risks)])
        zero = np.zeros(lost.shape)
        tokens = zero + np.arange(len(self.settings))[::-1, None]
        yes = np.ones_like(lost)
        self._all = Outcomes(lost, ~lost, yes, tokens, tokens, zero, zero, zero)

    full_samples = 8

    def families(self) -> list[list[str]]:
        return [[each.rule for each in self.settings[1:]]]

    def is_full(self, setting: Setting) -> bool:
        return setting == FULL

    def of(self, settings: Sequence[Setting], queries: Places) -> Outcomes:
        return self._all.at([self.settings.index(each) for each in settings], queries)


def test_a_promise_is_broken_at_most_as_often_as_said() -> None:
    risks = [0.0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.07, 0.1]
    promise = QueryClass(epsilon=0.05, delta=0.1)
    broken, chosen = 0, []
    for seed in range(150):
        tables = Drawn(risks, 400, seed)
        found = certify(
            cast(OutcomeTables, tables), split_queries(400, seed), tables.settings, promise
        )
        assert found.tested[0].setting == FULL
        assert found.certified[0].figures.bound == 0
        at = [tables.settings.index(each.setting) for each in found.certified]
        boldest = max(at)
        chosen.append(boldest)
        broken += boldest > 5  # the risk of the fifth is just below epsilon
    # 150 splits at 10% spread by 2.4 points.
    assert broken / 150 <= 0.1 + 0.07
    assert np.mean(chosen) >= 3  # and it is of use


def test_what_is_held_out_and_calibrated_has_no_say_in_the_order() -> None:
    tables = Drawn([0.02, 0.05, 0.1], 200, 0)
    split = split_queries(200, 1)
    promise = QueryClass(epsilon=0.2)
    orders = []
    for calibrate in (split.calibrate, split.calibrate[:20], split.held):
        found = certify(
            cast(OutcomeTables, tables),
            split._replace(calibrate=calibrate),
            tables.settings,
            promise,
        )
        orders.append([each.setting for each in found.tested])
    assert orders[0] == orders[1] == orders[2]


def test_an_unlucky_setting_hides_nothing_of_the_ladder_and_the_other_way_round() -> None:
    split = split_queries(400, 0)
    promise = QueryClass(epsilon=0.05, delta=0.1)

    def certified(*risks: float) -> list[str]:
        """The first three are a family, the other two stand alone and were the search's pick."""
        tables = Drawn([0.0, 0.01, 0.2, 0.0, 0.01], 400, 0)
        tables.families = lambda: [[each.rule for each in tables.settings[1:4]]]
        for place, risk in enumerate(risks, 1):
            lost = np.isin(np.arange(400), split.calibrate[: round(risk * len(split.calibrate))])
            tables._all.differed[place] = lost
        picked = [FULL, *tables.settings[4:]]
        found = certify(cast(OutcomeTables, tables), split, picked, promise)
        return [each.setting.rule.removeprefix("fixed:") for each in found.certified[1:]]

    assert sorted(certified(0, 0, 0, 0, 0)) == ["1", "2", "3", "4", "5"]
    assert sorted(certified(0, 0, 0, 0.2, 0)) == ["1", "2", "3"]  # the other two are one sequence
    assert sorted(certified(0.2, 0, 0, 0, 0)) == ["4", "5"]
    # 5 of 200 lost: p = 0.06 passes at all of delta, and with the ladder's part of it no more.
    assert sorted(certified(0, 0.025, 0.025, 0, 0)) == ["1", "4", "5"]


def test_too_few_queries_certify_the_full_budget_only() -> None:
    tables = Drawn([0.0, 0.0], 30, 0)
    found = certify(
        cast(OutcomeTables, tables),
        split_queries(30, 0),
        tables.settings,
        QueryClass(epsilon=0.02, delta=0.1),
    )
    assert [each.setting for each in found.certified] == [FULL]
    assert not found.enough
    assert (found.queries, found.needed) == (15, 114)


@given(st.integers(-300, 300), st.integers(-200, 200), st.integers(-250, 0), st.integers(0, 250))
def test_the_boundary_is_found_from_anywhere(last: int, first: int, least: int, most: int) -> None:
    first = min(max(first, least), most)
    asked = []

    def kept(at: int) -> bool:
        assert least <= at <= most
        asked.append(at)
        return at <= last

    found = boundary(kept, first, least, most)
    assert found == (None if last < least else min(last, most))
    assert len(asked) <= 22


def test_outcomes_are_against_the_full_budget_on_the_same_samples() -> None:
    # Two of three samples say "b" but the first says "a": a rule that stops at once errs.
    [query] = collect_queries(TraceSample("q", n, 10, text) for n, text in enumerate("abb"))
    found = outcomes_of([query] * 40, ["fixed:1", "never"], samples=3, wave=1, full_samples=3)
    assert not found.differed[1].any()
    assert 0 < found.differed[0].mean() < 1
    assert found.tokens.tolist() == [[10.0] * 40, [30.0] * 40]
    assert found.agreement[0].tolist() == [1.0] * 40
    assert np.allclose(found.agreement[1], 2 / 3)
    wave = outcomes_of([query] * 40, ["never"], samples=3, wave=3, full_samples=3)
    assert not wave.differed.any()
    small = outcomes_of([query] * 40, ["never"], samples=1, wave=1, full_samples=3)
    assert (small.differed == found.differed[:1]).all()
