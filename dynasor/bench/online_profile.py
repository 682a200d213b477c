"""How thorough an online benchmark is, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynasor.bench.slo import counted_window
from dynasor.errors import ConfigError

PLACES = 64
"""Requests in the batch at once where the settings do not say: on few cores a larger batch slows each
step down more than it serves."""


LONGEST = 1_000_000
"""Seconds of traffic in a run."""
FASTEST = 1_000_000
"""Arrivals a second."""
MOST_ARRIVALS = 1_000_000
"""Arrivals of a run; they are all planned before it begins."""
LOOSEST = 1_000_000
"""SLO scale."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How thorough a benchmark is.

    Attributes:
        factors: rates in units of vanilla's capacity.
        duration: of the traffic of a run, seconds.
        warm_up: first part of it that does not count, seconds.
        cool_down: last part of it that does not count, seconds.
        patience: seconds after that until what is left counts as unfinished.
        repeats: runs of each rate, with other times and other samples.
        refine: rates that are tried between the last that holds the target and the next.
        scales: runs of a deadline-aware system at tighter scales.
        alone: queries a class whose unloaded latency is measured.
        saturated: seconds in which the capacity is measured.
        systems: names of those that run.
        beyond: go on above the highest rate while that holds the target, and below the lowest while
            that does not.
    """

    factors: tuple[float, ...]
    duration: float
    warm_up: float
    cool_down: float
    patience: float
    repeats: int
    refine: int
    scales: int
    alone: int
    saturated: float
    systems: tuple[str, ...]
    beyond: bool = True


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        factors=(0.8, 1.25, 2.5, 4, 6),
        duration=20,
        warm_up=4,
        cool_down=2,
        patience=15,
        repeats=1,
        refine=0,
        scales=1,
        alone=3,
        saturated=8,
        systems=("vanilla", "ours"),
    ),
    "ablation": Profile(
        factors=(1, 2, 4),
        duration=15,
        warm_up=3,
        cool_down=2,
        patience=4,
        repeats=1,
        refine=0,
        scales=0,
        alone=3,
        saturated=8,
        systems=("all",),
        beyond=False,
    ),
    "full": Profile(
        factors=(0.4, 0.6, 0.8, 1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8),
        duration=60,
        warm_up=8,
        cool_down=8,
        patience=60,
        repeats=3,
        refine=2,
        scales=4,
        alone=6,
        saturated=30,
        systems=("all",),
    ),
}


def choose_profile(name: str, **given: float | int | None) -> Profile:
    """A profile with some of its fields as given; None leaves a field as it is.

    Raises:
        ConfigError: if there is no such profile, or nothing of a run would count.
    """
    if name not in PROFILES:
        raise ConfigError(f"--profile {name}: there are {', '.join(PROFILES)}")
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    profile = replace(PROFILES[name], **changes)
    if profile.repeats < 1:
        raise ConfigError(f"--repeats {profile.repeats}: must be 1 or more")
    for option in ("duration", "warm_up", "cool_down"):
        seconds = getattr(profile, option)
        if not 0 <= seconds <= LONGEST:
            raise ConfigError(
                f"--{option.replace('_', '-')} {seconds:g}: must be 0 to {LONGEST:,} seconds"
            )
    try:
        counted_window(profile.duration, profile.warm_up, profile.cool_down)
    except ValueError as error:
        raise ConfigError(f"--duration: {error}; make it longer or the others shorter") from None
    return profile


def parse_rates(text: str | None) -> tuple[float, ...] | None:
    """Rates with commas between them, ascending; None where none are given.

    Raises:
        ConfigError: if it is something else.
    """
    if text is None:
        return None
    try:
        return check_rates([float(part) for part in text.split(",") if part.strip()])
    except ValueError:
        raise ConfigError(f"--rates {text}: give numbers with commas, such as 0.5,1,2") from None


def check_rates(rates: Sequence[float]) -> tuple[float, ...]:
    """The rates, ascending.

    Raises:
        ConfigError: if one is zero or below, or there is none.
    """
    for rate in rates:
        if not 0 < rate <= FASTEST:
            raise ConfigError(
                f"--rates {rate:g}: a rate must be above 0 and at most {FASTEST:,} arrivals a second"
            )
    if not rates:
        raise ConfigError("--rates is empty: give one rate or more")
    return tuple(sorted(set(rates)))


def check_arrivals(rates: Sequence[float], duration: float) -> None:
    """See that no run has more arrivals than can be planned.

    Raises:
        ConfigError: naming the rate.
    """
    for rate in rates:
        if rate * duration > MOST_ARRIVALS:
            raise ConfigError(
                f"--rates {rate:g}: more than {MOST_ARRIVALS:,} arrivals in {duration:g} s; lower it, "
                "or give a shorter --duration"
            )


def check_scale_rate(rate: float | None, rates: Sequence[float] | None) -> float | None:
    """The rate at which scales are compared.

    Raises:
        ConfigError: if it is not one of the rates.
    """
    if rate is not None and rate not in (rates or ()):
        raise ConfigError(f"--scale-rate {rate:g}: must be one of --rates")
    return rate


def check_scale(scale: float) -> float:
    """The SLO scale.

    Raises:
        ConfigError: if it is under 1.
    """
    if not 1 <= scale <= LOOSEST:
        raise ConfigError(
            f"--slo-scale {scale:g}: must be 1 to {LOOSEST:,}; under 1 an answer would be due before "
            "the idle engine has it"
        )
    return scale
