"""What an encoder is given of a prompt: some of its tokens, and the shape of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynasor.ranking.prompt_shape import prompt_shape
from dynasor.ranking.prompt_text import split_question

BATCH_TOKENS, BATCH_PROMPTS = 8_192, 64
CHARACTERS_A_TOKEN = 16
"""A middle further than this many characters a token from both ends is not even tokenised."""


class Window(NamedTuple):
    """What is read of one prompt.

    Attributes:
        ids: tokens, with those that mark beginning and end.
        shape: (SHAPE_SIZE,) numbers about the whole prompt.
    """

    ids: list[int]
    shape: list[float]


class Batch(NamedTuple):
    """Windows of several prompts.

    Attributes:
        ids: (prompts, longest) int64, padded with 0.
        mask: (prompts, longest) int64, 1 where there is a token; each row has one.
        shape: (prompts, SHAPE_SIZE) float32.
    """

    ids: Tensor
    mask: Tensor
    shape: Tensor


class PromptWindow:
    """Cuts windows out of questions: of one with more than `tokens` tokens, so many first and last ones.

    What was said before the question is told by the shape alone.

    Args:
        tokenizer: of the library `tokenizers`.
        ends: special tokens before and after a text.
        tokens: of a window, with the special ones.
    """

    def __init__(self, tokenizer: Any, ends: tuple[list[int], list[int]], tokens: int) -> None:
        self._tokenizer = tokenizer
        self._before, self._after = ends
        self._room = max(2, tokens - len(self._before) - len(self._after))

    def cut(self, prompts: Sequence[str]) -> list[Window]:
        """A window for each prompt."""
        texts = [self._ends_of(split_question(prompt)[1]) for prompt in prompts]
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            Window(self._trim(encoding.ids), prompt_shape(prompt))
            for prompt, encoding in zip(prompts, found, strict=True)
        ]

    def _ends_of(self, question: str) -> str:
        most = CHARACTERS_A_TOKEN * self._room
        if len(question) > 2 * most:
            question = f"{question[:most]} {question[-most:]}"
        # Half of a surrogate pair is legal in JSON, and no tokenizer takes it.
        return question.encode("utf-8", "replace").decode("utf-8")

    def _trim(self, ids: list[int]) -> list[int]:
        if len(ids) > self._room:
            first = self._room // 2
            ids = ids[:first] + ids[first - self._room :]
        return [*self._before, *ids, *self._after]


def collate(windows: Sequence[Window]) -> Batch:
    """One batch of these windows."""
    longest = max(1, max(len(window.ids) for window in windows))
    ids = torch.zeros(len(windows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = torch.tensor(window.ids, dtype=torch.int64)
        mask[row, : max(1, len(window.ids))] = 1
    return Batch(ids, mask, torch.tensor([window.shape for window in windows]))


def in_batches(windows: Sequence[Window]) -> list[list[int]]:
    """The places of windows, by rising size, in batches of limited prompts and padded tokens."""
    sizes = [len(window.ids) for window in windows]
    batches: list[list[int]] = []
    for place in sorted(range(len(windows)), key=sizes.__getitem__):
        last = batches[-1] if batches else []
        if not last or len(last) >= BATCH_PROMPTS or (len(last) + 1) * sizes[place] > BATCH_TOKENS:
            batches.append([place])
        else:
            last.append(place)
    return batches
