"""Which replica wrote a text, so that what goes on from it can go there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from algorithms.program import Request

Where = TypeVar("Where", bound=Hashable)

REMEMBERED = 10_000
"""Gangs whose texts are kept in mind: the length and the hash of each, not the texts."""


class Authors(Generic[Where]):
    """See the module; replicas are known by any name."""

    def __init__(self) -> None:
        self._written: OrderedDict[str, dict[str, tuple[Where, int, int]]] = OrderedDict()

    def wrote(self, request: Request, where: Where, text: str) -> None:
        """What a request has written so far, and where."""
        gang = self._written.setdefault(request.program, {})
        whole = request.prefix + text
        gang[request.id] = (where, len(whole), hash(whole))
        self._written.move_to_end(request.program)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def of(self, request: Request) -> Where | None:
        """The replica that wrote the longest beginning of a request's prefix; None if none did."""
        prefix, author, longest = request.prefix, None, 0
        if prefix:
            for where, length, digest in self._written.get(request.program, {}).values():
                if longest < length <= len(prefix) and hash(prefix[:length]) == digest:
                    author, longest = where, length
        return author
