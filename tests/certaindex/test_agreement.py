from collections import Counter
from math import isnan, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.agreement import certaindex, certaindex_batched

counts = st.lists(st.integers(0, 50), max_size=12)


def by_definition(counts: list[int]) -> float | None:
    n = sum(counts)
    if n < 2:
        return None
    entropy = -sum(c / n * log(c / n) for c in counts if c)
    return (log(n) - entropy) / log(n)


@settings(deadline=None)
@given(counts)
def test_is_the_papers_formula(counts: list[int]) -> None:
    expected = by_definition(counts)
    value = certaindex(counts)
    if expected is None:
        assert value is None
    else:
        assert value == pytest.approx(expected, abs=1e-12)
        assert 0 <= value <= 1


@settings(deadline=None)
@given(counts, st.randoms())
def test_order_of_groups_does_not_matter(counts: list[int], random: object) -> None:
    shuffled = counts[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = certaindex(counts), certaindex(shuffled)
    assert (first is None) == (second is None)
    if first is not None:
        assert first == pytest.approx(second)


def test_extremes() -> None:
    assert certaindex([7]) == 1
    assert certaindex([1] * 7) == 0
    assert certaindex([1]) is None
    assert certaindex([]) is None


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        certaindex([3, -1])


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 9), st.data())
def test_batched_is_the_single_one(queries: int, samples: int, data: st.DataObject) -> None:
    row = st.lists(st.integers(0, 4), min_size=samples, max_size=samples)
    groups = data.draw(st.lists(row, min_size=queries, max_size=queries))
    flags = st.lists(st.booleans(), min_size=samples, max_size=samples)
    mask = data.draw(st.lists(flags, min_size=queries, max_size=queries))
    shape = (queries, samples)
    values = certaindex_batched(
        torch.tensor(groups, dtype=torch.long).reshape(shape),
        torch.tensor(mask, dtype=torch.bool).reshape(shape),
    )
    assert values.shape == (queries,)
    for value, ids, answered in zip(values.tolist(), groups, mask, strict=True):
        kept = Counter(i for i, flag in zip(ids, answered, strict=True) if flag)
        expected = certaindex(kept.values())
        if expected is None:
            assert isnan(value)
        else:
            assert value == pytest.approx(expected, abs=1e-12)


def test_batched_needs_one_shape() -> None:
    with pytest.raises(ValueError, match="one shape"):
        certaindex_batched(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool))
