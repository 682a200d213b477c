"""A sequence classifier of transformers as a reward model, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from algorithms.program import Prompt
from dynasor.errors import EngineError, MissingExtra
from dynasor.rewards.base import Attempt

ROWS = 32
"""Attempts in one pass of the model."""


class ClassifierReward:
    """Probability of a classifier's last label, the sigmoid of its output where it has but one.

    The attempt is rendered by the model's chat template, the text as the assistant's turn so far,
    and scored at its last token.

    Args:
        model: folder or hub name of a sequence classification model with a chat template.
    """

    def __init__(self, model: str) -> None:
        self._name = model
        self._model: Any = None
        self._tokenizer: Any = None

    async def start(self) -> None:
        """Load the model.

        Raises:
            MissingExtra: if transformers is not installed.
            EngineError: if the model cannot be loaded.
        """
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError:
            raise MissingExtra(
                "a transformers reward model needs transformers: pip install 'dynasor-llm[train]'"
            ) from None
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self._name)
            model = AutoModelForSequenceClassification.from_pretrained(
                self._name, dtype=torch.float32 if not torch.cuda.is_available() else "auto"
            )
        except Exception as error:  # transformers raises whatever its parts raise
            message = " ".join(str(error).split())[:300]
            raise EngineError(f"cannot load the reward model {self._name!r}: {message}") from error
        if not getattr(self._tokenizer, "chat_template", None):
            raise EngineError(f"the reward model {self._name!r} has no chat template")
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """Probability that each attempt is right so far."""
        return await asyncio.to_thread(self._score, list(attempts))

    def _score(self, attempts: list[Attempt]) -> list[float]:
        import torch

        ids = [self._tokens(*attempt) for attempt in attempts]
        # Like lengths together, so that little is padded.
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        rewards = [0.0] * len(ids)
        with torch.inference_mode():
            for first in range(0, len(order), ROWS):
                places = order[first : first + ROWS]
                scores = self._probabilities([ids[place] for place in places])
                for place, score in zip(places, scores, strict=True):
                    rewards[place] = score
        return rewards

    def _tokens(self, prompt: Prompt, text: str) -> list[int]:
        if isinstance(prompt, str):
            return list(self._tokenizer.encode(prompt + text))
        rendered = self._tokenizer.apply_chat_template(
            [dict(message) for message in prompt], tokenize=False, add_generation_prompt=True
        )
        return list(self._tokenizer.encode(rendered + text, add_special_tokens=False))

    def _probabilities(self, rows: list[list[int]]) -> list[float]:
        import torch

        pad = self._model.config.pad_token_id or 0
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        device = self._model.device
        logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        if logits.shape[1] == 1:
            values = logits[:, 0].float().sigmoid()
        else:
            values = logits.float().softmax(dim=1)[:, -1]
        probabilities: list[float] = values.tolist()
        return probabilities

    async def close(self) -> None:
        """Forget the model."""
        self._model = self._tokenizer = None
