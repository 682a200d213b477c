"""Which settings of a class are certified to keep its promised loss, and what that took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

LADDER = 0.6
"""Share of delta at which the ladder is tested; the rest is for the other settings. The levels of an
exact test come in steps, so most of delta is often worth all of it: of 250 queries one may be lost for a
promise of 2 points at a level of 4% as at 10%."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A setting that was tested.

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
        tested: settings from the safest to the boldest on the search part; first the full budget, at any
            wave, which loses nothing by definition.
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
    """Test settings on the calibration part, in sequences that the search part alone has fixed.

    The first sequence is the ladder: the family of rules that looks best, from its safest threshold to
    its boldest, at all waves that the search found promising. The second one has what the search found,
    settings of that family too; one that passes in either is certified. Each is tested at its part of
    delta up to the first that fails. Since the calibration part had no say in the order, all that passed
    keep the promise at once.

    Args:
        tables: outcomes of the class.
        split: its queries.
        settings: what the search found promising; the full budget is among them.
        promise: of the class; epsilon is set.
    """
    assert promise.epsilon is not None, "checked before the search"
    full = [each for each in dict.fromkeys(settings) if tables.is_full(each)]
    first = ladder(tables, split, settings, promise)
    others = [each for each in dict.fromkeys(settings) if each not in full]
    others = _safest_first(tables, split, others, promise)[: MOST_SETTINGS - len(full) - len(first)]
    passed = {*full, *_passed(tables, split, first, others, promise)}
    order = [*full, *_safest_first(tables, split, list(dict.fromkeys([*first, *others])), promise)]
    outcomes = tables.of(order, split.calibrate)
    tested = tuple(
        Tested(
            setting,
            _figures(setting, outcomes, place, promise, by_definition=place < len(full)),
            certified=setting in passed,
        )
        for place, setting in enumerate(order)
    )
    delta = None if promise.guarantee == "mean" else promise.risk
    return Guarantee(tested, len(split.calibrate), queries_needed(promise.epsilon, delta))


def ladder(
    tables: OutcomeTables, split: Split, settings: Sequence[Setting], promise: QueryClass
) -> list[Setting]:
    """A family of rules from its safest threshold to its boldest, each at the given settings' waves.

    Of the families the one in which most tokens can be saved on the search part before a setting loses
    more than epsilon. It stands in its order whatever the queries are, so its first settings lose hardly
    anything. What the search picks one by one are the luckiest of many, and the first of these that
    fails ends the sequence.
    """
    assert promise.epsilon is not None, "checked before the search"
    waves = sorted({each.wave for each in settings}, reverse=True)  # a larger one stops later
    best: list[Setting] = []
    least = np.inf
    for rules in tables.families():
        family = [Setting(rule, tables.full_samples, wave) for rule in rules for wave in waves]
        known = tables.of(family, split.search)
        losses = known.bounded_losses(promise.loss).mean(axis=1)
        kept = np.logical_and.accumulate(losses <= promise.epsilon)
        tokens = known.tokens.mean(axis=1).min(where=kept, initial=np.inf)
        if tokens < least or not best:
            best, least = family, tokens
    return best


def _safest_first(
    tables: OutcomeTables, split: Split, settings: list[Setting], promise: QueryClass
) -> list[Setting]:
    """By the loss on the search part, least first, and among equals by tokens, most first: what is
    slowest to stop is safest."""
    if not settings:
        return []
    known = tables.of(settings, split.search)
    losses = known.bounded_losses(promise.loss).mean(axis=1)
    order = np.lexsort((-known.tokens.mean(axis=1), losses))
    return [settings[place] for place in order]


def _passed(
    tables: OutcomeTables,
    split: Split,
    first: list[Setting],
    others: list[Setting],
    promise: QueryClass,
) -> Iterator[Setting]:
    """Those of both sequences that are certified; the others have no part in a promise of the mean."""
    assert promise.epsilon is not None, "checked before the search"
    part = LADDER if others else 1.0
    for sequence, level in ((first, part * promise.risk), (others, (1 - part) * promise.risk)):
        if not sequence:
            continue
        losses = tables.of(sequence, split.calibrate).bounded_losses(promise.loss)
        if promise.guarantee == "confidence":
            passed = fixed_sequence(p_values(losses, promise.epsilon), level)
        elif sequence is first:
            passed = risk_controlled(losses, promise.epsilon)
        else:
            continue
        yield from (each for each, kept in zip(sequence, passed, strict=True) if kept)


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
