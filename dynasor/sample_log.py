"""Where finished samples are kept, so that a run that was broken off can go on."""

from __future__ import annotations

from typing import Protocol

from algorithms.program import Generation, Program, Request


class SampleLog(Protocol):
    """Keeps finished samples, and knows those of an earlier run."""

    def recorded(self, request: Request) -> Generation | None:
        """The finished sample of an earlier run that answers this request."""
        ...

    def write(self, program: Program, request: Request, generation: Generation) -> None:
        """Keep a generation before anything is decided on it."""
        ...
