"""What `dynasor tune` may choose from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dynasor.errors import ConfigError
from dynasor.slo.outcomes import Setting

FULL = "never"
"""The rule that spends the full budget."""
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "default": ("6", "5", "4", "3.5", "3", "2.5", "2", "1.5", "1.2", "0.9", "0.6", "0.4", "0.2", "0",
                "-0.2", "-0.4", "-0.7", "-1", "-1.5", "-2"),
    "leader-change": ("0.001", "0.002", "0.005", "0.01", "0.02", "0.035", "0.05", "0.07", "0.1",
                      "0.15", "0.2", "0.3"),
    "adaptive-consistency": ("0.999", "0.995", "0.99", "0.98", "0.95", "0.9", "0.8", "0.7"),
    "fixed": ("48", "32", "24", "16", "12", "8", "6", "4", "3", "2", "1"),
}  # fmt: skip
"""Rules and their first parameter, from the safest to the boldest."""
POLICIES = ("default", "gang-srpt", "gang-fcfs", "vllm")
WAVES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
MOST_REPLICAS = 1024


class Platform(NamedTuple):
    """What all classes share.

    Attributes:
        policy: order of the waiting, `[scheduler] policy`.
        places: requests in an engine's batch at once, `[engine] max_running`: its admission limit.
        ranked: whether a ranker says how long a query will be.
        replicas: engines behind one front end.
    """

    policy: str
    places: int
    ranked: bool
    replicas: int


class Plan(NamedTuple):
    """A whole configuration: the platform, and class -> setting."""

    platform: Platform
    settings: Mapping[str, Setting]


class Space(NamedTuple):
    """All plans that may be tried.

    Attributes:
        rules: family -> texts of its rules, safest first.
        samples: budgets of a query that rules see, the full one first.
        waves: samples in flight.
        policies: see `Platform`, as the others are.
        places: see `Platform`.
        ranks: whether to rank.
        replicas: ascending.
    """

    rules: Mapping[str, tuple[str, ...]]
    samples: tuple[int, ...]
    waves: tuple[int, ...]
    policies: tuple[str, ...]
    places: tuple[int, ...]
    ranks: tuple[bool, ...]
    replicas: tuple[int, ...]

    def all_rules(self) -> list[str]:
        """Every rule once."""
        return [rule for rules in self.rules.values() for rule in rules]


def space_of(
    families: Sequence[str],
    *,
    full_samples: int,
    most_places: int,
    can_rank: bool,
    replicas: tuple[int, int],
) -> Space:
    """The space around a full budget and a calibrated engine.

    Args:
        families: of rules, see `FAMILIES`.
        full_samples: the full budget.
        most_places: requests in the batch at once of the engine as it was calibrated.
        can_rank: whether there is a ranker, and a prompt of each question.
        replicas: fewest and most.

    Raises:
        ConfigError: if there is no such family.
    """
    for name in families:
        if name not in FAMILIES:
            raise ConfigError(f"--family {name}: there are {', '.join(FAMILIES)}")
    least, most = replicas
    if not 1 <= least <= most <= MOST_REPLICAS:
        raise ConfigError(
            f"--replicas {least}-{most}: give a number, or a range such as 1-8, up to {MOST_REPLICAS}"
        )
    rules = {
        name: tuple(
            f"{name}:{value}"
            for value in FAMILIES[name]
            if name != "fixed" or int(value) < full_samples
        )
        for name in families
    }
    return Space(
        rules={FULL: (FULL,), **{name: texts for name, texts in rules.items() if texts}},
        samples=tuple(dict.fromkeys(max(1, full_samples // part) for part in (1, 2, 4))),
        waves=tuple(dict.fromkeys(min(wave, full_samples) for wave in WAVES)),
        policies=POLICIES,
        places=tuple(dict.fromkeys(max(1, most_places // part) for part in (1, 2, 4))),
        ranks=(False, True) if can_rank else (False,),
        replicas=tuple(_geometric(least, most)),
    )


def _geometric(least: int, most: int) -> Iterator[int]:
    """From the least to the most by about a quarter, each at least one more."""
    value = least
    while value < most:
        yield value
        value = max(value + 1, round(1.25 * value))
    yield most
