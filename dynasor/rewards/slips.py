"""The embedded model's own reward model: the probability that it has not slipped so far."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from dynasor.errors import MissingExtra
from dynasor.rewards.base import Attempt

ROWS = 32
"""Attempts in one pass of the model."""


class SlipReward:
    """Probability that a solution is right so far; see `dynasor.embedded_model.slips`.

    The model is loaded when it is first asked, since every server of the embedded model has it and few
    are asked for rewards.

    Args:
        model: folder of the embedded model.
        slips: file that `train_reward` wrote.
        threads: of the CPU, for all of torch in this process.
    """

    def __init__(self, model: Path, slips: Path, *, threads: int = 1) -> None:
        self._folder = model
        self._file = slips
        self._threads = threads
        self._loading = Lock()
        self._model: Any = None
        self._tokenizer: Any = None
        self._slips: Any = None  # dynasor.embedded_model.slips.Slips

    async def start(self) -> None:
        """See that it can be loaded.

        Raises:
            MissingExtra: if transformers is not installed.
        """
        if find_spec("torch") is None or find_spec("transformers") is None:
            raise MissingExtra(
                "the embedded reward model needs transformers: pip install 'dynasor-llm[train]'"
            )

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from dynasor.embedded_model.slips import Slips

        self._slips = Slips.read(self._file)
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        model = AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.float32)
        torch.set_num_threads(self._threads)
        self._model = model.eval()

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """Probability that each attempt is right so far; 1 for an empty one."""
        return await asyncio.to_thread(self._score, list(attempts))

    def _score(self, attempts: list[Attempt]) -> list[float]:
        from dynasor.embedded_model.slips import features_of, written

        with self._loading:
            if self._model is None:
                self._load()
        texts = [written(each.prompt, each.text, self._tokenizer) for each in attempts]
        # Like lengths together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place].ids))
        rewards = [1.0] * len(texts)
        for first in range(0, len(order), ROWS):
            places = order[first : first + ROWS]
            known = features_of(self._model, [texts[place] for place in places])
            for place, features in zip(places, known, strict=True):
                if len(features):
                    rewards[place] = float(self._slips.right_so_far(features)[-1].exp())
        return rewards

    async def close(self) -> None:
        """Forget the model."""
        self._model = self._tokenizer = None
