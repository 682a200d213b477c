"""The KV cache of a simulated replica: how many blocks are free, and what free ones still hold.

As in vLLM, a full block that nobody uses any more keeps its tokens until it is needed for others; the
one that was freed first goes first, and of a sequence the end before the beginning. So members of a
gang share the full blocks of their prompt, and a request that was preempted finds again what was not
overwritten meanwhile. (The block with the last token of a prompt is never shared here. Where it is
full, vLLM lets a preempted request find a sibling's copy of it: a difference of one block.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class Holding:
    """Blocks of one request in the cache.

    Attributes:
        prefix: name of the prompt.
        shared: blocks of the prompt that its users share.
        tokens: tokens that have a place.
    """

    prefix: str
    shared: int
    tokens: int = 0


class KVBlocks:
    """Blocks of `size` tokens.

    Args:
        total: blocks.
        size: tokens a block.
    """

    def __init__(self, total: int, size: int) -> None:
        self.total = total
        self.size = size
        self.free = total
        self._blank = total  # free blocks that hold nothing
        self._cached: OrderedDict[Hashable, int] = (
            OrderedDict()
        )  # owner -> free blocks; oldest first
        self._prompts: dict[str, list[int]] = {}  # prefix in use -> [users, blocks that are filled]
        self._litter = 0  # name of cached blocks that nobody will ask for again

    def blocks(self, tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-tokens // self.size)

    def take(self, blocks: int) -> None:
        """Use free blocks for new tokens; what they hold is lost."""
        self.free -= blocks
        assert self.free >= 0, "the caller looks before it takes"
        blank = min(blocks, self._blank)
        self._blank -= blank
        blocks -= blank
        while blocks:
            owner, held = next(iter(self._cached.items()))
            if held > blocks:
                self._cached[owner] = held - blocks
                return
            del self._cached[owner]
            blocks -= held

    def cost(self, prefix: str, tokens: int) -> int:
        """Free blocks that `admit` and growing to `tokens` would take."""
        used = self._prompts.get(prefix)
        return self.blocks(tokens) - (used[1] if used is not None else 0)

    def shared(self, prefix: str) -> bool:
        """Whether somebody uses this prompt."""
        return prefix in self._prompts

    def admit(self, owner: Hashable, prefix: str, prompt: int, tokens: int) -> Holding:
        """Begin a sequence of `tokens`, the first `prompt` of which are those of `prefix`.

        The blocks that are found in the cache are held from now on; `tokens` of the result says how
        many they cover. The last token is always computed anew: its output is wanted.

        Args:
            owner: the request; its own blocks are found again after a preemption.
            prefix: name of the prompt; its users, if any, have computed all of it.
            prompt: tokens of the prompt.
            tokens: in all.
        """
        shared = (prompt - 1) // self.size
        used = self._prompts.get(prefix)
        if used is None:
            used = self._prompts[prefix] = [0, self._again(prefix, shared)]
        else:
            assert used[1] == shared, "a step has no tokens left while a prompt is half computed"
        used[0] += 1
        found = used[1]
        # What comes after a gap in the cache is of no use.
        found += self._again(owner, (tokens - 1) // self.size - shared if found == shared else 0)
        return Holding(prefix, shared, found * self.size)

    def _again(self, owner: Hashable, most: int) -> int:
        """Use up to `most` cached blocks as what they hold; the others become blank."""
        held = self._cached.pop(owner, 0)
        again = min(held, most)
        self._blank += held - again
        self.free -= again
        return again

    def need(self, holding: Holding, tokens: int) -> int:
        """Blocks that must be taken to hold `tokens` in all."""
        return self.blocks(tokens) - self.blocks(holding.tokens)

    def grow(self, holding: Holding, tokens: int) -> None:
        """Hold `tokens` in all, taking the blocks for it."""
        self.take(self.need(holding, tokens))
        prompt = self._prompts[holding.prefix]
        prompt[1] = max(prompt[1], min(holding.shared, tokens // self.size))
        holding.tokens = tokens

    def release(self, holding: Holding, owner: Hashable | None) -> None:
        """Free a sequence; under the name of `owner`, if any, its blocks can be found again."""
        full = holding.tokens // self.size
        shared = min(full, holding.shared)
        self._blank += self.blocks(holding.tokens) - full
        self.free += self.blocks(holding.tokens) - shared
        self._keep(owner, full - shared)
        prompt = self._prompts[holding.prefix]
        prompt[0] -= 1
        if not prompt[0]:
            del self._prompts[holding.prefix]
            self.free += prompt[1]
            self._keep(holding.prefix, prompt[1])

    def _keep(self, owner: Hashable | None, blocks: int) -> None:
        if not blocks:
            return
        if owner is None:
            newest = next(reversed(self._cached), None)
            if newest != self._litter:
                self._litter += 1
            owner = self._litter
        self._cached[owner] = self._cached.get(owner, 0) + blocks
