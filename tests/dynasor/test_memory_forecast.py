"""The forecast of KV memory against a batch that is grown token by token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.scheduling.memory import expected_left, peak_tokens

BATCH = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8)


@given(st.integers(0, 100), BATCH)
def test_the_peak_is_that_of_a_batch_grown_by_hand(shared, batch):
    used = shared + sum(own for own, _ in batch)
    peak = now = used
    live = [[own, growth] for own, growth in batch]
    while live:
        for request in [r for r in live if r[1] == 0]:
            live.remove(request)
            now -= request[0]
        # What a request generates from now on is its own and leaves with it.
        for request in live:
            request[0] += 1
            request[1] -= 1
        now += len(live)
        peak = max(peak, now)
    assert peak_tokens(used, batch) == pytest.approx(peak)


def test_what_is_longer_than_usual_is_expected_to_go_on_a_while():
    assert expected_left(0, 100, 1000) == 100
    assert expected_left(90, 100, 1000) == 25
    assert expected_left(500, 100, 1000) == 25
    assert expected_left(500, 100, 7) == 7
