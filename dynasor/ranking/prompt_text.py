"""A prompt as one text, as rankers read it: the question last, before it what was said before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CONTEXT_CHARACTERS = 8_000
"""Of what was said before the question, only so many last characters are kept."""

_USER = "<|user|>\n"


def prompt_text(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a prompt.

    A text, or a single message of the user, stays as it is. Of several messages each begins with its
    role, and the last is the question, which is kept whole.

    Args:
        prompt: a text, or chat messages with `role` and `content`; parts of a message that are not
            text do not count.
    """
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        return ""
    question = _content(prompt[-1])
    if len(prompt) == 1 and prompt[-1].get("role", "user") == "user":
        return question
    context = "".join(
        f"<|{message.get('role', 'user')}|>\n{_content(message)}\n" for message in prompt[:-1]
    )
    return f"{context[-CONTEXT_CHARACTERS:]}{_USER}{question}"


def split_question(text: str) -> tuple[str, str]:
    """What was said before the question, and the question, of what `prompt_text` made."""
    context, marker, question = text.rpartition(_USER)
    return (context, question) if marker else ("", text)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        texts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""
