"""How many replicas a load needs: expected remaining tokens over the tokens that one is to have."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

HYSTERESIS = 0.1
"""Part of a replica's tokens by which the load must fall short before one fewer is wanted."""


def replicas_wanted(expected: Iterable[float], tokens_a_replica: float, replicas: int) -> int:
    """Replicas for a load; at least one.

    Args:
        expected: output tokens that are expected to come from each replica's gangs.
        tokens_a_replica: that each is to have.
        replicas: as of now.
    """
    load = sum(expected) / tokens_a_replica
    wanted = max(1, ceil(load))
    if wanted < replicas:
        wanted = min(replicas, max(1, ceil(load + HYSTERESIS)))
    return wanted
