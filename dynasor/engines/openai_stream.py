"""What one streamed request has produced, folded in chunk by chunk.

The client hands over what the server sent without checking it, so this file does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from algorithms.program import FinishReason, Generation, Progress, Request, ScoredToken

LARGEST_OUTPUT = 8 << 20
"""Characters that are kept of one request: a server that never ends must not fill the memory."""

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
}


class UnreadableStreamError(ValueError):
    """The server sent something else than chunks of a completion, or too much."""


class StreamedOutput:
    """Text, counts and confidences of one request so far.

    Tokens are the server's figure once it has sent one; until then each chunk with text (of the
    answer, or of reasoning that the server keeps apart) counts as one token.

    Args:
        request: that runs.
        news: called after each chunk, or None.
    """

    def __init__(self, request: Request, news: Callable[[], None] | None = None) -> None:
        self._request = request
        self._news = news
        self._wanted = request.sampling
        self._parts: list[str] = []
        self._length = 0
        self._chunks = 0
        self._completion_tokens: int | None = None
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._finish_reason: str | None = None
        self._confidence: list[float] = []
        self._logprobs: list[float] = []
        self._scored: list[ScoredToken] = []

    @property
    def tokens(self) -> int:
        """Output tokens so far."""
        return self._chunks if self._completion_tokens is None else self._completion_tokens

    @property
    def finished(self) -> bool:
        """Whether the server has said why the output ended."""
        return self._finish_reason is not None

    def take(self, chunk: Any) -> None:
        """Fold one chunk in.

        Raises:
            UnreadableStreamError: if it is no completion chunk, or the output grows too large.
        """
        choices = getattr(chunk, "choices", None)
        if not isinstance(choices, list):
            raise UnreadableStreamError("the server sent something else than completion chunks")
        if (usage := getattr(chunk, "usage", None)) is not None:
            self._count(usage)
        if choices:  # the last chunk of a stream has usage only
            self._append(choices[0])
        if self._news is not None:
            self._news()

    def _count(self, usage: Any) -> None:
        self._completion_tokens = _whole(usage.completion_tokens, "usage.completion_tokens")
        self._prompt_tokens = _whole(usage.prompt_tokens, "usage.prompt_tokens")
        details = getattr(usage, "prompt_tokens_details", None)
        if details is not None:
            self._cached_tokens = _whole(details.cached_tokens or 0, "cached_tokens")

    def _append(self, choice: Any) -> None:
        delta = getattr(choice, "delta", None)
        new = getattr(choice if delta is None else delta, "text" if delta is None else "content")
        if new is not None and not isinstance(new, str):
            raise UnreadableStreamError(f"the server sent a {type(new).__name__} for a text")
        if new:
            self._length += len(new)
            if self._length > LARGEST_OUTPUT:
                raise UnreadableStreamError(
                    f"the server sent more than {LARGEST_OUTPUT} characters"
                )
            self._parts.append(new)
        if new or _reasoning(delta):
            self._chunks += 1
        self._finish_reason = choice.finish_reason or self._finish_reason
        if getattr(choice, "logprobs", None) is not None:
            if self._wanted.top_logprobs:
                self._confidence += _confidences(choice.logprobs, self._wanted.top_logprobs)
            if self._wanted.logprobs:
                self._logprobs += _chosen(choice.logprobs)
            if self._wanted.alternatives is not None:
                self._scored += _scored(choice.logprobs, self._wanted.alternatives)

    def progress(self) -> Progress:
        """The event that reports the state."""
        confidence, logprobs = tuple(self._confidence) or None, tuple(self._logprobs) or None
        return Progress(
            self._request.id, self._text(), self.tokens, confidence, logprobs, self._scored
        )

    def _text(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def generation(self, *, cut: bool, error: str | None) -> Generation:
        """The event that ends the request.

        Args:
            cut: somebody cut it.
            error: what went wrong, or None. What goes wrong after the finish reason has arrived
                does not matter any more.
        """
        reason = _FINISH.get(self._finish_reason or "")
        if reason is None and cut:
            reason, error = "aborted", None
        elif reason is None:
            error = (
                error or f"the server ended the output by itself: {str(self._finish_reason)[:80]}"
            )
        return Generation(
            request=self._request.id,
            text=self._text(),
            tokens=self.tokens,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            finish_reason=reason or "error",
            confidence=self._confidence or None,
            logprobs=self._logprobs or None,
            error=None if reason else error,
            scored=self._scored,
        )


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or value < 0:
        raise UnreadableStreamError(f"the server sent {str(value)[:80]!r} for {name}")
    return value


def _reasoning(delta: Any) -> bool:
    """Whether a chat chunk holds reasoning that the server keeps apart from the answer."""
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))


def _confidences(logprobs: Any, top: int) -> list[float]:
    """Negative mean of the largest log-probabilities of each token, from either endpoint's form."""
    content = getattr(logprobs, "content", None)
    if content is not None:
        tables = [[entry.logprob for entry in token.top_logprobs] for token in content]
    else:
        completion = getattr(logprobs, "top_logprobs", None) or []
        tables = [list((table or {}).values()) for table in completion]
    largest = [sorted(table, reverse=True)[:top] for table in tables if table]
    return [-sum(values) / len(values) for values in largest]


def _chosen(logprobs: Any) -> list[float]:
    """Log-probability of each token that was sampled, from either endpoint's form."""
    content = getattr(logprobs, "content", None)
    if content is not None:
        values = [token.logprob for token in content]
    else:
        values = getattr(logprobs, "token_logprobs", None) or []
    return [float(value) for value in values if value is not None]


def _scored(logprobs: Any, alternatives: int) -> list[ScoredToken]:
    """Each token with the likeliest in its place, from either endpoint's form."""
    content = getattr(logprobs, "content", None)
    if content is not None:
        return [
            ScoredToken(
                str(token.token),
                float(token.logprob),
                tuple(
                    (str(other.token), float(other.logprob)) for other in token.top_logprobs or ()
                ),
            )
            for token in content
        ]
    tokens = getattr(logprobs, "tokens", None) or []
    values = getattr(logprobs, "token_logprobs", None) or []
    tables = getattr(logprobs, "top_logprobs", None) or [None] * len(tokens)
    return [
        ScoredToken(str(token), float(value), tuple((table or {}).items())[:alternatives])
        for token, value, table in zip(tokens, values, tables, strict=True)
        if value is not None
    ]
