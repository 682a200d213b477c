"""Room in the engine: places that would stay empty, given to queries that are already there.

Places that nobody uses cost nothing but power. With more samples side by side than a query will
probably need, the first that agree are there sooner, so it is answered sooner; what is left over is cut
when the query stops, and what arrives meanwhile finds the room that is left.
"""

from __future__ import annotations


class Room:
    """Requests in flight of all queries that share an engine, and how many more it takes.

    Attributes:
        places: requests in flight, over all queries, up to which a query may have more than its wave.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._taken = 0
        self._by_query: dict[str, int] = {}

    @property
    def spare(self) -> int:
        """Places that are free now."""
        return max(0, self.places - self._taken)

    def take(self, query: str, requests: int) -> None:
        """A query has so many requests in flight now."""
        self._taken += requests - self._by_query.get(query, 0)
        self._by_query[query] = requests

    def leave(self, query: str) -> None:
        """A query has stopped; what it had in flight is cut."""
        self._taken -= self._by_query.pop(query, 0)
