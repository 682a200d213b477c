"""Training data in the form that a loss of lists takes: batches of prompts of about equal length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from dynasor.ranking.examples import LengthExample
from dynasor.ranking.losses import Lengths
from dynasor.ranking.prompt_window import Batch, PromptWindow, Window, collate

LISTS_A_BUCKET = 20
"""So many lists' worth of random examples are sorted by window length before they are cut to lists."""

_CUT_AT_ONCE = 256


class TrainingLists:
    """Examples with their windows, drawn as lists in an order that seed and epoch determine.

    Each batch is one list; its windows are about equally long, so that little is padded.

    Args:
        examples: to learn from.
        window: cuts their prompts.
        size: examples a list.
        seed: of the order.
    """

    def __init__(
        self,
        examples: Sequence[LengthExample],
        window: PromptWindow,
        *,
        size: int,
        seed: int,
    ) -> None:
        self._size, self._seed = size, seed
        self._windows: list[Window] = []
        for start in range(0, len(examples), _CUT_AT_ONCE):
            some = examples[start : start + _CUT_AT_ONCE]
            self._windows += window.cut([example.prompt for example in some])
        self.log_tokens = torch.tensor([math.log(e.tokens) for e in examples], dtype=torch.float32)
        self._cut = torch.tensor([e.cut > 0 for e in examples])

    def __len__(self) -> int:
        """Lists an epoch."""
        return math.ceil(len(self._windows) / self._size)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Batch, Lengths]]:
        """The lists of an epoch from the given one on: batches of prompts, and (1, prompts) lengths."""
        draw = np.random.default_rng([self._seed, number])
        order = draw.permutation(len(self._windows))
        lists: list[list[int]] = []
        for first in range(0, len(order), LISTS_A_BUCKET * self._size):
            bucket = order[first : first + LISTS_A_BUCKET * self._size].tolist()
            bucket.sort(key=lambda place: len(self._windows[place].ids))
            lists += [bucket[k : k + self._size] for k in range(0, len(bucket), self._size)]
        for number_of_list in draw.permutation(len(lists))[start:]:
            yield self._list(lists[number_of_list])

    def _list(self, places: list[int]) -> tuple[Batch, Lengths]:
        lengths = Lengths(
            self.log_tokens[places].unsqueeze(0),
            self._cut[places].unsqueeze(0),
            torch.ones(1, len(places), dtype=torch.bool),
        )
        return collate([self._windows[place] for place in places]), lengths
