import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.confidence import confidence_statistics, group_means, token_confidence

confidences = st.lists(st.floats(0, 20), min_size=1, max_size=60)


def test_confidence_is_the_negative_mean() -> None:
    assert token_confidence([[-1.0, -3.0], [0.0, -10.0]]).tolist() == [2.0, 5.0]
    with pytest.raises(ValueError, match="tokens, k"):
        token_confidence([1.0, 2.0])


@settings(deadline=None)
@given(confidences, st.integers(1, 70))
def test_group_means_slide_over_all_tokens(values: list[float], group: int) -> None:
    size = min(group, len(values))
    expected = [np.mean(values[i : i + size]) for i in range(len(values) - size + 1)]
    assert group_means(values, group) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(confidences, st.integers(1, 70), st.integers(1, 70))
def test_statistics_are_ordered(values: list[float], group: int, tail: int) -> None:
    found = confidence_statistics(values, group=group, tail=tail)
    assert found.lowest_group <= found.bottom_tenth + 1e-9
    assert min(values) - 1e-9 <= found.lowest_group <= max(values) + 1e-9
    assert found.mean == pytest.approx(np.mean(values))
    assert found.tail == pytest.approx(np.mean(values[-tail:]))


def test_bottom_tenth_of_twenty_groups_is_the_two_lowest() -> None:
    values = [5.0] * 18 + [1.0, 2.0]
    assert confidence_statistics(values, group=1).bottom_tenth == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([],), "1 or more"), (([1.0], 0), "group must be 1"), (([1.0], 1, 0), "tail must be 1")],
)
def test_bad_input_is_refused(arguments: tuple[object, ...], message: str) -> None:
    values, *sizes = arguments
    named = dict(zip(("group", "tail"), sizes, strict=False))
    with pytest.raises(ValueError, match=message):
        confidence_statistics(values, **named)  # type: ignore[arg-type]
