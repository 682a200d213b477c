"""Several endpoints share one limit of queries and of expected tokens.

Each endpoint reports what it has and is told how many queries it may have. Who tells them may die at any
time: a new one knows everything again once each endpoint has reported, and meanwhile the endpoints keep
to what they were told last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic

FORGOTTEN = 5.0
"""Seconds after which an endpoint that does not report counts no more."""
SETTLING = 3.0
"""Seconds in which a new view gives nobody more than it has: until all endpoints have found it."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an endpoint has.

    Attributes:
        queries: that are open.
        expected: output tokens that are expected to come from them.
        limit: queries that it may have until it hears again.
        time: of the report, seconds.
    """

    queries: int
    expected: float
    limit: int = 0
    time: float = 0.0


def share(
    reports: Mapping[str, Report], endpoint: str, max_queries: int, max_expected: float | None
) -> int:
    """Queries that an endpoint may have at once: those it has, and its part of the free places.

    It is given no more than the others leave, which keep what they were told until they report again.
    So all limits together do not exceed `max_queries` once all endpoints have reported; an endpoint that
    has more queries keeps them.

    Args:
        reports: of all endpoints.
        endpoint: which asks.
        max_queries: of all endpoints together.
        max_expected: output tokens beyond which nobody is given more; None for no limit.
    """
    mine = reports[endpoint]
    free = max_queries - sum(report.queries for report in reports.values())
    if max_expected is not None and sum(r.expected for r in reports.values()) >= max_expected:
        free = 0
    each, over = divmod(max(free, 0), len(reports))
    fair = mine.queries + each + (sorted(reports).index(endpoint) < over)
    others = (report for name, report in reports.items() if name != endpoint)
    left = max_queries - sum(max(report.queries, report.limit) for report in others)
    return max(mine.queries, min(fair, left))


class GlobalView:
    """All reports, and the shares that follow from them; an actor on Ray.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._reports: dict[str, Report] = {}

    def report(
        self,
        endpoint: str,
        queries: int,
        expected: float,
        limit: int,
        max_queries: int,
        max_expected: float | None,
    ) -> int:
        """Take a report; the endpoint's limit from now on.

        Args:
            endpoint: which reports.
            queries, expected, limit: see `Report`.
            max_queries, max_expected: by the endpoint's configuration, see `share`; that of a new
                version counts as soon as its first endpoint reports.
        """
        now = self._clock()
        report = self._reports[endpoint] = Report(queries, expected, limit, now)
        for name, each in list(self._reports.items()):
            if now - each.time > FORGOTTEN:
                del self._reports[name]
        told = share(self._reports, endpoint, max_queries, max_expected)
        if now - self._begun < SETTLING:
            told = min(told, max(limit, queries))
        self._reports[endpoint] = replace(report, limit=told)
        return told

    def leave(self, endpoint: str) -> None:
        """An endpoint has ended: its places are free at once."""
        self._reports.pop(endpoint, None)
