"""Which conversations belong together, so that no prompt is in two splits."""

from __future__ import annotations

import hashlib


class ConversationGroups:
    """Names the group of each conversation: conversations with the same first prompt are one group.

    Data sets cut long conversations into pieces; a piece goes where the beginning of its conversation
    went. Prompts are the same if they differ in case and spaces only.
    """

    def __init__(self) -> None:
        self._of_prompt: dict[bytes, str] = {}
        self._of_conversation: dict[str, str] = {}

    def group(self, conversation: str | None, first_prompt: str | None) -> str | None:
        """The group of a conversation, or of a further piece of one.

        Args:
            conversation: its name, the same for all its pieces; None where it has none.
            first_prompt: the prompt that the piece begins with; None where an answer comes first.

        Returns:
            The group; None for a piece whose first prompt is already in another group, so that it
            has to be left out.
        """
        if first_prompt is None:
            return self._of_conversation.setdefault(
                conversation or "", _digest(conversation or "").hex()
            )
        digest = _digest(first_prompt)
        of_prompt = self._of_prompt.get(digest)
        of_conversation = None if conversation is None else self._of_conversation.get(conversation)
        if of_prompt and of_conversation and of_prompt != of_conversation:
            return None
        group = of_conversation or of_prompt or digest.hex()
        self._of_prompt[digest] = group
        if conversation is not None:
            self._of_conversation[conversation] = group
        return group


def _digest(prompt: str) -> bytes:
    words = " ".join(prompt.casefold().split())
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:12]
