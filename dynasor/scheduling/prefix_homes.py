"""Which replicas have lately been sent which beginnings of prompts, and so mostly hold their KV."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from algorithms.program import Prompt

CHARACTERS_A_TOKEN = 4
"""A rough figure, which is enough to weigh a prompt against some hundred output tokens."""
REMEMBERED = 20_000
"""Beginnings that are kept."""
HOLDERS = 4
"""Replicas that are kept for a beginning, the latest ones."""
_PARTS = 64  # of a prompt, at most
_BLOCK = 1024  # characters of a part of a plain text


class PrefixHomes:
    """See the module. Chats share messages (such as the system prompt), plain texts share blocks."""

    def __init__(self) -> None:
        self._holders: OrderedDict[int, tuple[int, ...]] = OrderedDict()

    def held(self, prompt: Prompt) -> dict[int, float]:
        """For each replica that was sent a beginning of the prompt, the tokens of the longest one."""
        found: dict[int, float] = {}
        for key, tokens in _beginnings(prompt):
            holders = self._holders.get(key)
            if holders is None:
                break
            found.update(dict.fromkeys(holders, tokens))
        return found

    def note(self, prompt: Prompt, replica: int) -> None:
        """The prompt was sent there."""
        for key, _ in _beginnings(prompt):
            others = (other for other in self._holders.get(key, ()) if other != replica)
            self._holders[key] = (replica, *islice(others, HOLDERS - 1))
            self._holders.move_to_end(key)
        while len(self._holders) > REMEMBERED:
            self._holders.popitem(last=False)

    def forget(self, replica: int) -> None:
        """The replica is gone, and what it held with it."""
        for key, holders in list(self._holders.items()):
            if replica in holders:
                self._holders[key] = tuple(other for other in holders if other != replica)


def tokens_of(prompt: Prompt) -> float:
    """About how many tokens a prompt has."""
    if isinstance(prompt, str):
        return len(prompt) / CHARACTERS_A_TOKEN
    return sum(len(message["content"]) for message in prompt) / CHARACTERS_A_TOKEN


def _beginnings(prompt: Prompt) -> Iterator[tuple[int, float]]:
    """A key of each beginning, the shortest first, and its tokens."""
    key, length = 0, 0
    if isinstance(prompt, str):
        blocks = range(0, len(prompt), _BLOCK)
        parts = [("text", prompt[start : start + _BLOCK]) for start in blocks[:_PARTS]]
    else:
        parts = [(message["role"], message["content"]) for message in prompt[:_PARTS]]
    for part in parts:
        key = hash((key, part))
        length += len(part[1])
        yield key, length / CHARACTERS_A_TOKEN
