"""The settings that keep the promise to a class, from the safest to the boldest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dynasor.slo.calibration_set import ClassCalibration

FULL = "never"
"""Rule of the full budget."""
MOST_RUNGS = 8
LESS = 0.95
"""Work of a rung of the ladder, over that of the one before it, at most."""


class Rung(NamedTuple):
    """A setting that can serve a query.

    Attributes:
        rule: stop rule.
        samples: full budget.
        wave: samples in flight.
        work: output tokens a query in the mean, where calibrated; else None.
    """

    rule: str
    samples: int
    wave: int
    work: float | None = None

    def __str__(self) -> str:
        return f"{self.rule}, {self.samples} samples, wave {self.wave}"


def ladder(settings: Sequence[Rung]) -> list[Rung]:
    """The first setting, and those after it that have clearly less work than the one before them.

    A narrower wave has less work too, but its queries take more rounds: under overload they would be
    answered later and not sooner, so such settings are left out.
    """
    rungs = [settings[0]]
    for setting in settings[1:]:
        last = rungs[-1].work
        if setting.wave < settings[0].wave:
            continue
        if last is None or setting.work is None or setting.work > LESS * last:
            continue
        rungs.append(setting)
        if len(rungs) == MOST_RUNGS:
            break
    return rungs


def certified_rungs(
    calibration: ClassCalibration | None, base: Rung | None, full: Rung
) -> list[Rung]:
    """All settings that keep the promise, safest first."""
    if calibration is None:
        return [full] if base is None else [full, base]
    return [
        Rung(
            each.settings.rule or full.rule,
            each.settings.samples or full.samples,
            each.settings.wave or full.wave,
            each.tokens,
        )
        for each in calibration.certified
    ]


def place_of(
    certified: Sequence[Rung], calibration: ClassCalibration | None, base: Rung | None
) -> int:
    """Where the base setting stands among the certified ones."""
    if base is None:
        return 0 if calibration is None else calibration.chosen
    for place, setting in enumerate(certified):
        if setting[:3] == base[:3]:
            return place
    known = "; ".join(str(setting) for setting in certified[:5])
    raise ValueError(f"{base} is not among the settings that were certified ({known}, ...)")
