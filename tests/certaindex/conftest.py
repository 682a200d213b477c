from collections.abc import Iterator

import pytest

from certaindex.equivalence import AnswerEquivalence


@pytest.fixture(scope="module")
def equivalence() -> Iterator[AnswerEquivalence]:
    # A test must not fail because the machine is busy; hostile input is tried with less time.
    with AnswerEquivalence(deadline=20.0) as shared:
        yield shared
