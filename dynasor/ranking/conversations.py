"""Examples out of recorded conversations: each answer of the assistant is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from dynasor.errors import DataError
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.grouping import ConversationGroups
from dynasor.ranking.prompt_text import prompt_text
from dynasor.ranking.token_count import TokenCount

CONVERSATION_FIELDS = ("conversations", "conversation", "messages")
_NAME_FIELDS = ("id", "conversation_id")
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}
"""Other roles (tools, other assistants) are context only."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said, in order.

    Attributes:
        name: the same for all pieces of one conversation; None where it has none.
        messages: chat messages with `role` and `content`.
    """

    name: str | None
    messages: tuple[dict[str, str], ...]


def parse_conversation(row: object, where: str) -> Conversation:
    """A conversation in the form of ShareGPT (`conversations` of `from` and `value`) or of LMSYS and
    OpenAI (`conversation` or `messages` of `role` and `content`).

    Raises:
        DataError: naming place and field.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object but {row!r:.40}; remove it")
    field = next((name for name in CONVERSATION_FIELDS if name in row), None)
    if field is None:
        raise DataError(
            f"{where}: a field 'conversations', 'conversation' or 'messages' is missing; "
            "is it a file of conversations?"
        )
    turns = row[field]
    if not isinstance(turns, list):
        raise DataError(f"{where}: field '{field}' must be a list, not {turns!r:.80}; mend it")
    messages = tuple(_message(turn, f"{where}: field '{field}'") for turn in turns)
    name = next((row[key] for key in _NAME_FIELDS if isinstance(row.get(key), str)), None)
    return Conversation(
        _without_piece(name) if name and field == "conversations" else name, messages
    )


def conversation_examples(
    conversations: Iterable[Conversation],
    count: TokenCount,
    *,
    later_turns: bool,
    left_out: Counter[str],
) -> Iterator[LengthExample]:
    """An example for each answer to a question of the user.

    Args:
        conversations: also pieces of conversations, in any order.
        count: tokens of an answer.
        later_turns: also answers that have something before their question; else first turns only.
        left_out: counts here what gives no example, by reason.
    """
    groups = ConversationGroups()
    seen: set[int] = set()
    for conversation in conversations:
        if not any(message["role"] == "user" for message in conversation.messages):
            left_out["conversations without a question"] += 1
            continue
        group = groups.group(conversation.name, _first_prompt(conversation))
        if group is None:
            left_out["pieces that begin like another conversation"] += 1
            continue
        for prompt, answer, turn in _answers(conversation.messages, later_turns):
            identity = hash((prompt, answer))
            if identity in seen:
                left_out["answers that are there already"] += 1
                continue
            seen.add(identity)
            tokens = count(answer)
            if tokens == 0:
                left_out["empty answers"] += 1
                continue
            yield LengthExample(prompt, tokens, group, turn=turn)


def _first_prompt(conversation: Conversation) -> str | None:
    spoken = [message for message in conversation.messages if message["role"] != "system"]
    return spoken[0]["content"] if spoken[0]["role"] == "user" else None


def _answers(
    messages: tuple[dict[str, str], ...], later_turns: bool
) -> Iterator[tuple[str, str, int]]:
    """Prompt, answer and number of the question among those of the user."""
    turn = 0
    for place, (before, after) in enumerate(pairwise(messages), 1):
        if before["role"] != "user":
            continue
        is_first = all(message["role"] == "system" for message in messages[: place - 1])
        if after["role"] == "assistant" and (is_first or later_turns):
            yield prompt_text(messages[:place]), after["content"], 0 if is_first else max(turn, 1)
        turn += 1


def _message(turn: object, where: str) -> dict[str, str]:
    if isinstance(turn, dict):
        role = turn.get("from", turn.get("role"))
        content = turn.get("value", turn.get("content"))
        if isinstance(role, str) and isinstance(content, str):
            return {"role": _ROLES.get(role, role), "content": content}
    raise DataError(f"{where} must hold turns with a role and a text, not {turn!r:.80}; mend it")


def _without_piece(name: str) -> str:
    """ShareGPT cuts long conversations; `abc_0` and `abc_14` are pieces of one."""
    base, _, piece = name.rpartition("_")
    return base if base and piece.isdigit() else name
