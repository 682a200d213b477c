"""How many replicas a load needs."""

from hypothesis import given
from hypothesis import strategies as st

from dynasor.scheduling.scaling import HYSTERESIS, replicas_wanted


def test_by_hand():
    assert replicas_wanted([], 100, 1) == 1
    assert replicas_wanted([100], 100, 1) == 1
    assert replicas_wanted([101], 100, 1) == 2
    assert replicas_wanted([150, 150, 0], 100, 3) == 3
    # One fewer only where it would not soon be one more again.
    assert replicas_wanted([195], 100, 3) == 3
    assert replicas_wanted([185], 100, 3) == 2
    assert replicas_wanted([0, 0, 0], 100, 3) == 1


@given(st.lists(st.floats(0, 1e6), max_size=20), st.floats(1, 1e5), st.integers(1, 50))
def test_as_many_as_the_load_needs_and_hardly_more(expected, tokens, replicas):
    wanted = replicas_wanted(expected, tokens, replicas)
    load = sum(expected) / tokens
    assert max(1, load) <= wanted <= max(1, load + 1 + HYSTERESIS)
    # It is content with what it asked for.
    assert replicas_wanted(expected, tokens, wanted) == wanted
