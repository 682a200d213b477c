"""Output tokens of one query by what they were for, as its requests end."""

from __future__ import annotations

from collections import Counter

from algorithms.program import Generation, Progress, Request, RequestKind


class TokenTally:
    """Adds up the events of one query.

    Attributes:
        scored: texts that the reward model has judged.
    """

    def __init__(self) -> None:
        self.scored = 0
        self._ended: Counter[RequestKind] = Counter()
        self._finished: Counter[RequestKind] = Counter()
        self._running: dict[str, int] = {}  # request -> tokens so far
        self._tokens_of: dict[int, int] = {}  # hash of a text from its beginning -> its tokens
        self._kept = 0
        self._first = ""

    def progress(self, event: Progress) -> None:
        """A request has got so far."""
        self._running[event.request] = event.tokens

    def ended(self, request: Request, event: Generation) -> None:
        """A request has ended."""
        self._running.pop(request.id, None)
        self._ended[request.kind] += event.tokens
        if event.finish_reason not in ("stop", "length"):
            return
        if request.kind == "score":
            self.scored += 1
        elif request.kind != "probe":
            self._note_text(request, event)
        self._finished[request.kind] += event.tokens

    def _note_text(self, request: Request, event: Generation) -> None:
        before = self._tokens_of.get(hash(request.prefix.strip()), 0) if request.prefix else 0
        if request.kind == "answer":  # goes on from the chain
            self._kept = max(self._running.values(), default=0)
            before = self._kept + self._finished["step"]
        text = request.prefix + event.text
        self._tokens_of[hash(text.strip())] = before + event.tokens
        if not self._first or (request.kind != "sample" and len(text) > len(self._first)):
            self._first = text

    @property
    def now(self) -> int:
        """All so far, with what running requests have told of themselves."""
        return self._ended.total() + sum(self._running.values())

    @property
    def probes(self) -> int:
        """Of probes that ended by themselves."""
        return self._finished["probe"]

    @property
    def kept(self) -> int:
        """Of a chain that was cut, and yet is the beginning of the answer."""
        return self._kept

    @property
    def first(self) -> str:
        """The first sample; where there are only parts, the longest text that they make."""
        return self._first

    def of(self, text: str) -> int:
        """Tokens of a text that requests have written; 0 if none has."""
        return self._tokens_of.get(hash(text.strip()), 0)
