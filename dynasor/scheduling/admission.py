"""Admission in front of a server that cannot order its requests: at most so many at once, by policy.

The queue, its policies and its bound on waiting are those of the scheduler inside vLLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from dynasor.scheduling.gang import Hints
from dynasor.scheduling.policies import Policy
from dynasor.scheduling.queue import Aging, GangQueue

_MEMORY = 200  # ended requests that the running average of their pace looks back on


class Ticket:
    """One request at the gate.

    Attributes:
        tokens: output tokens that it got, set by its holder before it leaves.
        finished: it ran to its end and was not cut; set likewise.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.finished = False
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._admitted: float | None = None


class Gate:
    """Lets at most `limit` requests pass at once, the next one by the order of a gang queue.

    Args:
        limit: requests at once.
        policy: orders the gangs that wait.
        aging: the starvation guard, or None for none.
    """

    def __init__(self, limit: int, policy: Policy, aging: Aging | None = None) -> None:
        self._free = limit
        self._queue: GangQueue[Ticket] = GangQueue(policy, monotonic, aging=aging)
        self._left = 0

    @asynccontextmanager
    async def slot(self, name: str, gang: str, hints: Hints) -> AsyncIterator[Ticket]:
        """Hold one of the places; waits for it. Leaving gives it back, however that comes about.

        Args:
            name: of the request, unique.
            gang: id of its gang.
            hints: the latest on the gang.
        """
        ticket = Ticket()
        self._queue.add(ticket, gang, name, hints)
        try:
            self._admit()
            await ticket._turn
            yield ticket
        finally:
            self._leave(ticket)

    def hint(self, gang: str, hints: Hints) -> None:
        """News of a gang, for the order of those of its requests that wait."""
        self._queue.hint(gang, hints)

    def _admit(self) -> None:
        self._queue.reconsider()
        while self._free and (ticket := self._queue.peek()) is not None:
            if ticket._turn.cancelled():  # its holder is about to leave, and needs no place
                self._queue.end(ticket)
                continue
            self._queue.take()
            self._free -= 1
            ticket._admitted = monotonic()
            ticket._turn.set_result(None)

    def _leave(self, ticket: Ticket) -> None:
        if ticket._admitted is not None:
            self._free += 1
            if ticket.tokens:
                self._left += 1
                pace = (monotonic() - ticket._admitted) / ticket.tokens
                self._queue.pace += (pace - self._queue.pace) / min(self._left, _MEMORY)
        self._queue.end(ticket, ticket.tokens, ticket.finished)
        self._admit()
