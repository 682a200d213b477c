"""Drift of a class whose queries are served under several settings: one watch for each of them.

Under load queries get bolder settings, and end otherwise than under the base one without having changed.
So each is compared with the calibrated queries under its own setting. Watches of several settings share
the risk of a false alarm (Bonferroni), for the same calibrated queries stand behind all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynasor.slo.drift import Alarm, Begun, DriftWatch
from dynasor.slo.traits import Traits


class LadderDrift:
    """Watches over the settings of a ladder.

    Args:
        references: of each rung, traits of the calibrated queries; none where it is not watched.
        risk: of a false alarm in a period, of all watches. The first one has half of it where there are
            others, for it sees the most queries; those share the other half.
        period: live queries of a watch's period.
    """

    def __init__(self, references: Sequence[Sequence[Traits]], *, risk: float, period: int) -> None:
        self._references = references
        self._period = period
        watched = [level for level, each in enumerate(references) if each]
        first, others = watched[:1], watched[1:]
        self._risks = dict.fromkeys(first, risk / 2 if others else risk)
        self._risks |= {level: risk / 2 / len(others) for level in others}
        self._watches: dict[int, DriftWatch] = {}  # others than the first when a query needs them
        for level in first:
            self._watch(level)

    def see(self, level: int, live: Traits) -> Alarm | None:
        """Compare one more query that ended on a rung; the alarm if it is this one that raises it."""
        watch = self._watch(level)
        return None if watch is None else watch.see(live)

    @property
    def evidence(self) -> dict[str, float]:
        """Evidence of drift by trait, the most that any watch has; 1 raises the alarm."""
        known = [watch.evidence for watch in self._watches.values()]
        return {
            trait: max((each[trait] for each in known), default=0.0)
            for trait in (Traits._fields if self._risks else ())
        }

    @property
    def seen(self) -> int:
        """Live queries of the periods that are under way."""
        return sum(watch.seen for watch in self._watches.values())

    def begun(self) -> dict[int, Begun]:
        """What the watches have seen, by rung."""
        return {level: watch.begun() for level, watch in self._watches.items()}

    def go_on(self, begun: Mapping[int, Begun]) -> None:
        """Go on with what other watches of the same settings have seen."""
        for level, each in begun.items():
            watch = self._watch(level)
            if watch is not None:
                watch.go_on(each)

    def _watch(self, level: int) -> DriftWatch | None:
        risk = self._risks.get(level)
        if risk is not None and level not in self._watches:
            reference = self._references[level]
            self._watches[level] = DriftWatch(reference, risk=risk, period=self._period)
        return self._watches.get(level)
