"""Several endpoints share one limit of queries and of expected tokens.

Each endpoint reports what it has and is told how many queries it may have. Who tells them may die at any
time: a new one knows everything again once each endpoint has reported, and meanwhile the endpoints keep
to what they were told last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

FORGOTTEN = 5.0
"""Seconds after which an endpoint that does not report counts no more."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an endpoint has: open queries, and output tokens that are expected to come from them."""

    queries: int
    expected: float
    time: float = 0.0


def share(
    reports: Mapping[str, Report], endpoint: str, max_queries: int, max_expected: float | None
) -> int:
    """Queries that an endpoint may have at once: those it has, and its part of the free places.

    The sum over all endpoints of what they have and are given never exceeds `max_queries`, so long as
    the reports are true; an endpoint that has more keeps them.

    Args:
        reports: of all endpoints.
        endpoint: which asks.
        max_queries: of all endpoints together.
        max_expected: output tokens beyond which nobody is given more; None for no limit.
    """
    free = max_queries - sum(report.queries for report in reports.values())
    if max_expected is not None and sum(r.expected for r in reports.values()) >= max_expected:
        free = 0
    each, over = divmod(max(free, 0), len(reports))
    place = sorted(reports).index(endpoint)
    return reports[endpoint].queries + each + (place < over)


class GlobalView:
    """All reports, and the shares that follow from them; an actor on Ray.

    Args:
        max_queries, max_expected: see `share`.
        clock: seconds.
    """

    def __init__(
        self,
        max_queries: int,
        max_expected: float | None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._limits = (max_queries, max_expected)
        self._clock = clock
        self._reports: dict[str, Report] = {}

    def report(self, endpoint: str, queries: int, expected: float) -> int:
        """Take a report; the endpoint's share."""
        now = self._clock()
        self._reports[endpoint] = Report(queries, expected, now)
        for name, report in list(self._reports.items()):
            if now - report.time > FORGOTTEN:
                del self._reports[name]
        return share(self._reports, endpoint, *self._limits)
