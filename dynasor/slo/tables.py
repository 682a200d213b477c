"""The outcomes of one class's recorded queries under any setting of the space, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynasor.recorded_query import RecordedQuery
from dynasor.slo.outcomes import Outcomes, Setting, outcomes_of, stack
from dynasor.slo.promise import QueryClass
from dynasor.slo.space import FULL

Places = NDArray[np.int64]
_SEARCHED, _CALIBRATED = 0.3, 0.5


class Split(NamedTuple):
    """Places of a class's queries, each in one part, ascending.

    Attributes:
        search: which settings are promising, and in which order they are tested.
        calibrate: what is certified; looked at only after the search.
        held: what the chosen one does; looked at by nobody before.
    """

    search: Places
    calibrate: Places
    held: Places


def split_queries(count: int, seed: int) -> Split:
    """Three parts at random: 30% to search, 50% to calibrate, the rest held out; none is empty.

    Raises:
        ValueError: if there are fewer than three queries.
    """
    if count < 3:
        raise ValueError(f"{count} queries cannot be split in three")
    order = np.random.default_rng((seed, count)).permutation(count)
    first = max(1, int(_SEARCHED * count))
    second = min(first + max(1, int(_CALIBRATED * count)), count - 1)
    return Split(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))


class OutcomeTables:
    """Outcomes of one class, made when they are first asked for.

    Args:
        queries: recorded, each with the full budget's samples or more.
        rules: every rule that may be asked for, those of a family from the safest to the boldest; one
            pass over the samples serves all.
        full_samples: full budget.
        seed: of the orders.
        progress: called with a text when a table is made.
    """

    def __init__(
        self,
        queries: Sequence[RecordedQuery],
        rules: Sequence[str],
        *,
        full_samples: int,
        seed: int,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.queries = queries
        self._rules = {rule: place for place, rule in enumerate(rules)}
        self.full_samples = full_samples
        self._seed = seed
        self._progress = progress
        self._tables: dict[tuple[int, int], Outcomes] = {}

    def is_full(self, setting: Setting) -> bool:
        """Whether a setting is the full budget itself, at whatever wave."""
        return setting.rule == FULL and setting.samples == self.full_samples

    def families(self) -> list[list[str]]:
        """Rules by family, each from the safest to the boldest, without the full budget."""
        found: dict[str, list[str]] = {}
        for rule in self._rules:
            if rule != FULL:
                found.setdefault(rule.partition(":")[0], []).append(rule)
        return list(found.values())

    def of(self, settings: Sequence[Setting], queries: Places) -> Outcomes:
        """Outcomes of settings, in their order, on some of the queries."""
        return stack(
            [
                self._table(*size).at([self._rules[each.rule] for each in group], queries)
                for size, group in groupby(settings, lambda each: (each.samples, each.wave))
            ]
        )

    def thrifty(
        self, like: Sequence[Setting], queries: Places, promise: QueryClass
    ) -> list[Setting]:
        """Settings with the samples and wave of given ones which seem to keep epsilon on some queries.

        Of each samples and wave those that no rule beats in loss and tokens at once: replay prices all
        rules in one pass, so that more of them can be tested than the search has tried.
        """
        found = []
        for samples, wave in dict.fromkeys((each.samples, each.wave) for each in like):
            settings = [Setting(rule, samples, wave) for rule in self._rules]
            outcomes = self.of(settings, queries)
            losses = outcomes.bounded_losses(promise.loss).mean(axis=1)
            tokens = outcomes.tokens.mean(axis=1)
            least = np.inf
            for place in np.lexsort((tokens, losses)):
                if losses[place] <= (promise.epsilon or 0.0) and tokens[place] < least:
                    least = tokens[place]
                    found.append(settings[place])
        return found

    def _table(self, samples: int, wave: int) -> Outcomes:
        found = self._tables.get((samples, wave))
        if found is None:
            if self._progress is not None:
                self._progress(f"replay at {samples} samples, wave {wave}")
            found = self._tables[samples, wave] = outcomes_of(
                self.queries,
                list(self._rules),
                samples=samples,
                wave=wave,
                full_samples=self.full_samples,
                seed=self._seed,
            )
        return found
