"""An allocator whose wave follows the load: many samples at once while the engine has room for them.

A larger wave answers sooner and is paid with samples that are cut when the query stops. While slots
of the batch would stay empty that price is low; under load it is other queries that wait for it.
"""

from __future__ import annotations

from certaindex.stopping import StopRule
from dynasor.allocator import Grant, LiveQuery, PerQuery


class LoadWave(PerQuery):
    """A stop rule for each query alone; the slots of the engine are shared out evenly.

    Args:
        rule: when a query stops.
        slots: requests that the engine runs at once.
        least: samples of a query in flight, however many queries there are.
    """

    def __init__(self, rule: StopRule, slots: int, least: int = 1) -> None:
        super().__init__(rule, least)
        self._slots = slots
        self._least = least
        self._live = 0

    def admit(self, query: LiveQuery) -> None:
        """One more shares the slots."""
        self._live += 1

    def grants(self) -> list[Grant]:
        """Fill up the waves of the queries that were reviewed."""
        self._wave = max(self._least, self._slots // max(1, self._live))
        return [grant for grant in super().grants() if grant.requests > 0]

    def release(self, query: LiveQuery) -> None:
        """One less shares the slots."""
        self._live -= 1
