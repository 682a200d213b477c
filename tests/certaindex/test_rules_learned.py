from math import isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.rules.learned import Learned, features, shipped
from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from certaindex.votes import Votes


def cast(groups: list[int], budget: int = 64, tokens: int = 100) -> Votes:
    votes = Votes(max_samples=budget)
    seen: dict[int, int] = {}
    for group in groups:
        votes.add(seen.setdefault(group, len(seen)), tokens)
    return votes


def test_the_data_file_fits_the_features() -> None:
    seen = shipped()
    assert len(seen.weights) == len(features(2, 1, 3, 61))
    assert list(seen.budgets) == sorted(seen.budgets)
    assert len(seen.budgets) == len(seen.cautions)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 50), st.integers(0, 500))
def test_the_score_is_finite_far_from_what_was_learned(
    first: int, second: int, others: int, remaining: int
) -> None:
    votes = Votes(max_samples=0)
    for group, count in enumerate((max(first, second), min(first, second))):
        for _ in range(count):
            votes.add(min(group, len(votes.counts)), 1)
    for _ in range(others + 1):
        votes.add(None, 1)
    votes.max_samples = votes.n + remaining
    assert isfinite(shipped().worth_of_more(votes))


def test_agreement_stops_sooner_than_a_tie() -> None:
    assert shipped().worth_of_more(cast([1, 1, 1, 1])) < shipped().worth_of_more(cast([1, 1, 2, 2]))


def test_one_sample_is_never_enough() -> None:
    assert parse_rule("default").decide(cast([1])).stop is None


def test_caution_moves_the_stop() -> None:
    votes = cast([1, 1, 1])
    assert Learned(caution=9).decide(votes).stop is None
    assert Learned(caution=-9).decide(votes).stop == "certain"
    with pytest.raises(ValueError, match="rule default: caution must be between -10 and 10"):
        Learned(caution=11)


def test_a_stop_without_half_of_the_votes_is_hopeless() -> None:
    assert Learned(caution=-10).decide(cast([1, 2, 3, 4, 5, 6])).stop == "hopeless"


def test_dear_samples_are_less_urgent() -> None:
    short, long = cast([1, 2], tokens=10), cast([1, 2], tokens=1000)
    assert value_of_next_sample(short) == pytest.approx(10 * value_of_next_sample(long))
    assert value_of_next_sample(Votes(max_samples=8)) == 0
    assert value_of_next_sample(cast([1, 2], budget=2)) == 0
