"""The two shapes of OpenAI's answers: chat and text, whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from algorithms.program import Generation
from serving.live_query import LiveQuery


class Choice(NamedTuple):
    """One answer: text, why it ended, and its tokens' log-probabilities where asked for."""

    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None


def choices_of(query: LiveQuery) -> list[Choice]:
    """The answers of a query that has ended."""
    if not query.plan.plain:
        outcome = query.outcome
        short = outcome is None or outcome.reason in ("deadline", "budget")
        return [Choice(query.chosen_text(), "length" if short else "stop")]
    return [
        Choice(
            choice.text if choice else "",
            "stop"
            if isinstance(choice, Generation) and choice.finish_reason == "stop"
            else "length",
        )
        for choice in query.choices
    ]


class Shape(Protocol):
    """How answers look on one endpoint."""

    def whole(self, query: LiveQuery) -> dict[str, Any]:
        """All of it, when it has ended."""
        ...

    def opening(self, query: LiveQuery) -> list[dict[str, Any]]:
        """What a stream begins with."""
        ...

    def piece(self, query: LiveQuery, index: int, text: str) -> dict[str, Any]:
        """More text of an answer; also an empty one, which says nothing."""
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
                "logprobs": choice.logprobs,
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

    def piece(self, query: LiveQuery, index: int, text: str) -> dict[str, Any]:
        """See `Shape`."""
        return self._chunk(query, index, {"content": text} if text else {})

    def end(self, query: LiveQuery, index: int, reason: str) -> dict[str, Any]:
        """See `Shape`."""
        return self._chunk(query, index, {}, reason)

    def usage(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        return _closing(query, _head(query, "chat.completion.chunk"), [])

    def _chunk(
        self, query: LiveQuery, index: int, delta: dict[str, Any], reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**_head(query, "chat.completion.chunk"), "choices": [choice]}


class TextShape:
    """`/v1/completions`."""

    def whole(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        choices = [
            {
                "index": index,
                "text": choice.text,
                "logprobs": choice.logprobs,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices_of(query))
        ]
        return _closing(query, _head(query, "text_completion"), choices)

    def opening(self, query: LiveQuery) -> list[dict[str, Any]]:
        """See `Shape`."""
        return []

    def piece(self, query: LiveQuery, index: int, text: str) -> dict[str, Any]:
        """See `Shape`."""
        return self._chunk(query, index, text, None)

    def end(self, query: LiveQuery, index: int, reason: str) -> dict[str, Any]:
        """See `Shape`."""
        return self._chunk(query, index, "", reason)

    def usage(self, query: LiveQuery) -> dict[str, Any]:
        """See `Shape`."""
        return _closing(query, _head(query, "text_completion"), [])

    def _chunk(self, query: LiveQuery, index: int, text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        return {**_head(query, "text_completion"), "choices": [choice]}
