"""Guarantees: exact where that can be worked out by hand, and kept over many calibrations."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.calibration import (
    fixed_sequence,
    holm,
    p_value,
    p_values,
    queries_needed,
    risk_controlled,
    upper_bound,
)


def losses(lost: int, size: int) -> np.ndarray:
    return np.array([1.0] * lost + [0.0] * (size - lost))


def test_the_exact_p_value_is_the_binomial_tail() -> None:
    tail = sum(comb(20, k) * 0.1**k * 0.9 ** (20 - k) for k in range(3))
    assert p_value(losses(2, 20), 0.1) == pytest.approx(tail)


def test_with_none_lost_the_bound_is_in_closed_form() -> None:
    for size, delta in ((250, 0.1), (22, 0.05), (1, 0.1)):
        assert upper_bound(losses(0, size), delta) == pytest.approx(1 - delta ** (1 / size))
    assert upper_bound(losses(0, 250), 0.1) == pytest.approx(0.0092, abs=5e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.data(), st.floats(0.01, 0.5))
def test_bound_and_p_value_agree(size: int, data: st.DataObject, delta: float) -> None:
    seen = losses(data.draw(st.integers(0, size - 1)), size)
    assert p_value(seen, upper_bound(seen, delta)) == pytest.approx(delta, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 0.5))
def test_bound_and_p_value_agree_for_losses_between(values: list[float], delta: float) -> None:
    seen = np.array(values)
    bound = upper_bound(seen, delta)
    assert seen.mean() <= bound <= 1
    if bound < 0.999:
        assert p_value(seen, min(bound + 1e-6, 0.9999)) <= delta + 1e-3


def test_losses_between_cost_queries() -> None:
    """Hoeffding and Bentkus know less than the binomial tail, and never more."""
    for lost in range(10):
        binary = losses(lost, 100)
        nearly = np.where(binary == 1, 0.999999, 0.0)
        if lost:
            assert p_value(nearly, 0.12) >= p_value(binary, 0.12) - 1e-5


def test_a_sequence_ends_at_the_first_that_fails() -> None:
    values = np.array([0.01, 0.1, 0.11, 0.001])
    assert fixed_sequence(values, 0.1).tolist() == [True, True, False, False]
    assert holm(values, 0.1).tolist() == [True, False, False, True]


def test_holm_by_hand() -> None:
    assert holm(np.array([0.02, 0.04, 0.06]), 0.1).tolist() == [True, True, True]
    assert holm(np.array([0.06, 0.04, 0.02]), 0.1).tolist() == [True, True, True]
    assert holm(np.array([0.04, 0.04, 0.04]), 0.1).tolist() == [False, False, False]


def test_controlling_the_mean_raises_what_falls() -> None:
    table = np.array([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=float)
    # Raised: 1, 2, 2 lost of 5; with one more query that is lost for sure, 2/6, 3/6, 3/6.
    assert risk_controlled(table, 0.4).tolist() == [True, False, False]
    assert risk_controlled(table, 0.5).tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.02, 0.1), (0.06, 0.1), (0.01, 0.05), (0.3, 0.5), (0.02, None)]
)
def test_queries_needed_are_just_enough(epsilon: float, delta: float | None) -> None:
    needed = queries_needed(epsilon, delta)
    for size, enough in ((needed, True), (needed - 1, False)):
        seen = losses(0, size)[None]
        if delta is None:
            assert risk_controlled(seen, epsilon)[0] == enough
        else:
            assert (p_value(seen[0], epsilon) <= delta) == enough


def test_more_queries_are_needed_where_some_are_lost() -> None:
    assert queries_needed(0.02, 0.1) < queries_needed(0.02, 0.1, 0.005)
    assert queries_needed(0.02, 0.1, 0.005) < queries_needed(0.02, 0.1, 0.015)


def test_odd_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no queries"):
        p_value(np.array([]), 0.1)
    with pytest.raises(ValueError, match="must be 0 to 1, not -1"):
        p_value(np.array([-1.0, 0.0]), 0.1)
    with pytest.raises(ValueError, match="between 0 and 1, not 0"):
        p_value(np.array([0.0]), 0.0)
    with pytest.raises(ValueError, match="below epsilon"):
        queries_needed(0.02, 0.1, 0.02)


def test_the_exact_test_is_wrong_at_most_as_often_as_promised() -> None:
    """By enumeration, not by chance: P(certified) where the true risk is just above epsilon."""
    for size, epsilon, delta in product((10, 50, 250), (0.02, 0.06, 0.2), (0.05, 0.1)):
        wrong = sum(
            comb(size, k) * epsilon**k * (1 - epsilon) ** (size - k)
            for k in range(size + 1)
            if p_value(losses(k, size), epsilon) <= delta
        )
        assert wrong <= delta


@pytest.mark.parametrize("seed", [0, 1])
def test_promises_hold_over_many_calibrations(seed: int) -> None:
    """20 settings whose risk grows, not always; the boldest certified breaks the promise at most so
    often, and so does the sequence however the losses of the settings hang together."""
    draw = np.random.default_rng(seed)
    risks = np.sort(draw.uniform(0, 0.12, 20))
    risks[5], risks[15] = risks[15], risks[5]
    epsilon, delta, splits, size = 0.05, 0.1, 400, 150
    broken = {"sequence": 0, "holm": 0}
    mean = []
    for _ in range(splits):
        common = draw.random(size)  # each setting loses the queries that are hard for all
        table = (common[None] < risks[:, None]).astype(float)
        values = p_values(table, epsilon)
        for name, certified in (
            ("sequence", fixed_sequence(values, delta)),
            ("holm", holm(values, delta)),
        ):
            broken[name] += bool((risks[certified] > epsilon).any())
        controlled = int(risk_controlled(table, epsilon).sum())
        mean.append(risks[controlled - 1] if controlled else 0.0)
    # 400 splits at 10% spread by 1.5 points.
    assert max(broken.values()) / splits <= delta + 0.045
    assert np.mean(mean) <= epsilon + 0.005
