"""Which settings of a class are certified to keep its promised loss, and what that took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certaindex.calibration import (
    fixed_sequence,
    p_value,
    p_values,
    queries_needed,
    risk_controlled,
    upper_bound,
)
from dynasor.slo.calibration_set import MOST_SETTINGS, CertifiedSetting
from dynasor.slo.outcomes import Outcomes, Setting
from dynasor.slo.promise import QueryClass
from dynasor.slo.tables import OutcomeTables, Split


@dataclass(frozen=True, slots=True)
class Tested:
    """A setting that was tested, in the order of the test.

    Attributes:
        setting: it.
        figures: on the calibrated queries.
        certified: whether it keeps the promise, with all that were certified.
    """

    setting: Setting
    figures: CertifiedSetting
    certified: bool


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What was certified of a class.

    Attributes:
        tested: settings in the order of the test, from the safest to the boldest; first the full
            budget, at any wave, which loses nothing by definition.
        queries: calibrated ones.
        needed: queries to calibrate on that the promise takes at least, if none is lost.
    """

    tested: tuple[Tested, ...]
    queries: int
    needed: int

    @property
    def certified(self) -> list[Tested]:
        """Those that keep the promise, safest first; never empty."""
        return [each for each in self.tested if each.certified]

    @property
    def enough(self) -> bool:
        """Whether any setting but the full budget could have been certified."""
        return self.queries >= self.needed


def certify(
    tables: OutcomeTables, split: Split, settings: Sequence[Setting], promise: QueryClass
) -> Guarantee:
    """Test the settings on the calibration part, in an order that the search part alone has fixed.

    By its loss on the search part, least first, and among equals by its tokens, most first: what is
    slowest to stop is safest. Since the calibration part had no say in the order, each setting is
    tested at the full level up to the first that fails, and all that passed keep the promise at once.

    Args:
        tables: outcomes of the class.
        split: its queries.
        settings: what the search found promising; the full budget is among them.
        promise: of the class; epsilon is set.
    """
    assert promise.epsilon is not None, "checked before the search"
    full = [each for each in dict.fromkeys(settings) if tables.is_full(each)]
    candidates = [each for each in dict.fromkeys(settings) if not tables.is_full(each)]
    if candidates:
        known = tables.of(candidates, split.search)
        losses = known.bounded_losses(promise.loss).mean(axis=1)
        order = np.lexsort((-known.tokens.mean(axis=1), losses))
        candidates = [candidates[place] for place in order[: MOST_SETTINGS - len(full)]]
    delta = None if promise.guarantee == "mean" else promise.risk
    passed = np.ones(0, dtype=bool)
    if candidates:
        losses = tables.of(candidates, split.calibrate).bounded_losses(promise.loss)
        if delta is None:
            passed = risk_controlled(losses, promise.epsilon)
        else:
            passed = fixed_sequence(p_values(losses, promise.epsilon), delta)
    outcomes = tables.of([*full, *candidates], split.calibrate)
    tested = tuple(
        Tested(
            setting,
            _figures(setting, outcomes, place, promise, by_definition=place < len(full)),
            certified=place < len(full) or bool(passed[place - len(full)]),
        )
        for place, setting in enumerate([*full, *candidates])
    )
    return Guarantee(tested, len(split.calibrate), queries_needed(promise.epsilon, delta))


def _figures(
    setting: Setting,
    outcomes: Outcomes,
    place: int,
    promise: QueryClass,
    *,
    by_definition: bool = False,
) -> CertifiedSetting:
    """What the queries say of a setting; nothing is lost by definition of the full budget."""
    assert promise.epsilon is not None, "checked before the search"
    bounded = outcomes.bounded_losses(promise.loss)[place]
    return CertifiedSetting(
        settings=setting.section(),
        loss=float(outcomes.losses(promise.loss)[place].mean()),
        bound=0.0 if by_definition else upper_bound(bounded, promise.risk),
        p_value=0.0 if by_definition else p_value(bounded, promise.epsilon),
        tokens=float(outcomes.tokens[place].mean()),
        samples=float(outcomes.samples[place].mean()),
    )
