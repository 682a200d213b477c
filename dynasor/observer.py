"""Who is told what happens to the queries of a runtime."""

from __future__ import annotations

from typing import Protocol

from algorithms.program import Event, Program, Request
from dynasor.outcome import Outcome


class Observer(Protocol):
    """Is told what happens, for a display or a log; must be quick and must not raise."""

    def received(self, program: Program, request: Request, event: Event) -> None:
        """An event was folded into its program."""
        ...

    def stopped(self, program: Program, outcome: Outcome) -> None:
        """A query has its outcome."""
        ...
