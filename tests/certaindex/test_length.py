"""The length score of LongBench-Write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certaindex.length import count_words, length_score


@pytest.mark.parametrize(
    ("requested", "delivered", "score"),
    [
        (100, 100, 100),
        (100, 200, 100 * (1 - 1 / 3)),
        (100, 400, 0),
        (100, 50, 50),
        (100, 33, 0),
        (100, 0, 0),
        (100, 10**9, 0),
    ],
)
def test_the_published_formula(requested, delivered, score):
    assert length_score(requested, delivered) == pytest.approx(score)


@given(st.integers(1, 10**6), st.integers(0, 10**7))
def test_it_is_between_0_and_100_and_full_only_at_the_length_asked_for(requested, delivered):
    score = length_score(requested, delivered)
    assert 0 <= score <= 100
    assert (score == 100) == (requested == delivered)


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="requested must be 1 or more"):
        length_score(0, 5)


def test_words_are_parts_between_blanks():
    assert count_words(" one  two\nthree-four ") == 3
