"""The two shapes of OpenAI's answers: chat and text, whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from algorithms.program import Generation, ScoredToken
from serving.live_query import LiveQuery
from serving.token_logprobs import for_chat, for_text


class Choice(NamedTuple):
    """One answer: text, why it ended, and its tokens where their log-probabilities are wanted."""

    text: str
    finish_reason: str
    scored: Sequence[ScoredToken] | None = None


def choices_of(query: LiveQuery) -> list[Choice]:
    """The answers of a query that has ended."""
    if not query.plan.plain:
        outcome = query.outcome
        short = outcome is None or outcome.reason in ("deadline", "budget")
        return [Choice(query.chosen_text(), "length" if short else "stop")]
    wanted = query.plan.sampling.alternatives is not None
    return [
        Choice(
            choice.text if choice else "",
            "stop"
            if isinstance(choice, Generation) and choice.finish_reason == "stop"
            else "length",
            (choice.scored if choice else ()) if wanted else None,
        )
        for choice in query.choices
    ]


class Piece(NamedTuple):
    """What is new of an answer: text, where it begins, and its tokens if they are wanted."""

    text: str
    offset: int = 0
    scored: Sequence[ScoredToken] = ()


class Shape(Protocol):
    """How answers look on one endpoint."""

    def whole(self, query: LiveQuery) -> dict[str, Any]:
        """All of it, when it has ended."""
        ...

    def opening(self, query: LiveQuery) -> list[dict[str, Any]]:
        """What a stream begins with."""
        ...

    def piece(self, query: LiveQuery, index: int, new: Piece) -> dict[str, Any]:
        """More of an answer; also nothing more."""
        ...

    def end(self, query: LiveQuery, index: int, reason: str) -> dict[str, Any]:
        """End of an answer."""
        ...

    def usage(self, query: LiveQuery) -> dict[str, Any]:
        """The chunk with the usage."""
        ...


def _head(query: LiveQuery, kind: str) -> dict[str, Any]:
    return {
        "id": query.plan.id,
        "object": kind,
        "created": int(time.time()),
        "model": query.plan.model,
    }


def _closing(query: LiveQuery, head: dict[str, Any], choices: Sequence[Any]) -> dict[str, Any]:
    return {
        **head,
        "choices": choices,
        "usage": query.usage().model_dump(),
        "dynasor": query.report().model_dump(),
    }


class ChatShape:
    """`/v1/chat/completions`."""

    def whole(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": None if choice.scored is None else for_chat(choice.scored),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices_of(query))
        ]
        return _closing(query, _head(query, "chat.completion"), choices)

    def opening(self, query: LiveQuery) -> list[dict[str, Any]]:
        """See `Shape`."""
        count = query.plan.samples if query.plan.plain else 1
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(query, index, delta) for index in range(count)]

    def piece(self, query: LiveQuery, index: int, new: Piece) -> dict[str, Any]:
        """See `Shape`."""
        logprobs = for_chat(new.scored) if new.scored else None
        return self._chunk(query, index, {"content": new.text} if new.text else {}, None, logprobs)

    def end(self, query: LiveQuery, index: int, reason: str) -> dict[str, Any]:
        """See `Shape`."""
        return self._chunk(query, index, {}, reason)

    def usage(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        return _closing(query, _head(query, "chat.completion.chunk"), [])

    def _chunk(
        self,
        query: LiveQuery,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**_head(query, "chat.completion.chunk"), "choices": [choice]}


class TextShape:
    """`/v1/completions`."""

    def whole(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        choices = [
            {
                "index": index,
                "text": choice.text,
                "logprobs": None if choice.scored is None else for_text(choice.scored, 0),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices_of(query))
        ]
        return _closing(query, _head(query, "text_completion"), choices)

    def opening(self, query: LiveQuery) -> list[dict[str, Any]]:
        """See `Shape`."""
        return []

    def piece(self, query: LiveQuery, index: int, new: Piece) -> dict[str, Any]:
        """See `Shape`."""
        logprobs = for_text(new.scored, new.offset) if new.scored else None
        return self._chunk(query, index, new.text, None, logprobs)

    def end(self, query: LiveQuery, index: int, reason: str) -> dict[str, Any]:
        """See `Shape`."""
        return self._chunk(query, index, "", reason)

    def usage(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        return _closing(query, _head(query, "text_completion"), [])

    def _chunk(
        self,
        query: LiveQuery,
        index: int,
        text: str,
        reason: str | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return {**_head(query, "text_completion"), "choices": [choice]}
