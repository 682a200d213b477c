"""The embedded model's own reward model: the probability that it has not slipped so far."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynasor.errors import EngineError, MissingExtra
from dynasor.rewards.base import Attempt

ROWS = 32
"""Attempts in one pass of the model."""


class SlipReward:
    """Probability that a solution is right so far; see `dynasor.embedded_model.slips`.

    Args:
        model: folder of the embedded model.
        slips: file that `train_reward` wrote.
        threads: of the CPU, for all of torch in this process.
    """

    def __init__(self, model: Path, slips: Path, *, threads: int = 1) -> None:
        self._folder = model
        self._file = slips
        self._threads = threads
        self._model: Any = None
        self._tokenizer: Any = None
        self._slips: Any = None  # dynasor.embedded_model.slips.Slips

    async def start(self) -> None:
        """Load the model.

        Raises:
            MissingExtra: if transformers is not installed.
            DataError: if the file is no reward model.
            EngineError: if the model cannot be loaded.
        """
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise MissingExtra(
                "the embedded reward model needs transformers: pip install 'dynasor-llm[train]'"
            ) from None
        from dynasor.embedded_model.slips import Slips

        self._slips = Slips.read(self._file)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
            model = AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.float32)
        except Exception as error:  # transformers raises whatever its parts raise
            message = " ".join(str(error).split())[:300]
            raise EngineError(f"cannot load the model in {self._folder}: {message}") from error
        torch.set_num_threads(self._threads)
        self._model = model.eval()

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """Probability that each attempt is right so far; 1 for an empty one."""
        return await asyncio.to_thread(self._score, list(attempts))

    def _score(self, attempts: list[Attempt]) -> list[float]:
        texts = [self._written(attempt) for attempt in attempts]
        # Like lengths together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place].ids))
        rewards = [1.0] * len(texts)
        from dynasor.embedded_model.slips import features_of

        for first in range(0, len(order), ROWS):
            places = order[first : first + ROWS]
            known = features_of(self._model, [texts[place] for place in places])
            for place, features in zip(places, known, strict=True):
                if len(features):
                    rewards[place] = float(self._slips.right_so_far(features)[-1].exp())
        return rewards

    def _written(self, attempt: Attempt) -> Any:
        from dynasor.embedded_model.slips import written

        return written(attempt.prompt, attempt.text, self._tokenizer)

    async def close(self) -> None:
        """Forget the model."""
        self._model = self._tokenizer = None
