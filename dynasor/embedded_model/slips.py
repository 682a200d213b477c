"""How probable it is that a solution is right so far, by what the embedded model thinks of its tokens.

A model that has written a token knows how probable it found it, and how probable the likeliest one. Its
mistakes are mostly slips: tokens that it would not have written most of the time. For each token the
probability of a slip there is

    h = sigmoid(bias + chosen * logit(p of the token) + best * logit(p of the likeliest)),

three numbers that are learned from solutions whose first wrong token is known (`train_reward`), and a
solution is right so far with the product of 1 - h: the discrete-time hazard model of survival analysis.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch.nn import functional

from algorithms.program import Prompt
from dynasor.errors import DataError

PAD = 1
_LARGEST = 14.0
"""Log-odds beyond which float32 knows no difference."""


@dataclass(frozen=True, slots=True)
class Slips:
    """The three numbers of the formula above."""

    bias: float
    chosen: float
    best: float

    @classmethod
    def read(cls, file: Path) -> Self:
        """What `train_reward` wrote.

        Raises:
            DataError: if it did not.
        """
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            return cls(*(float(told[name]) for name in ("bias", "chosen", "best")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no reward model ({error!r:.100}); train it again") from None

    def write(self, file: Path) -> None:
        """Keep it for `read`."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def right_so_far(self, features: torch.Tensor) -> torch.Tensor:
        """Log-probability that all is right up to each token.

        Args:
            features: (tokens, 2) of one solution, see `features_of`.

        Returns:
            (tokens,).
        """
        weights = torch.tensor([self.chosen, self.best])
        return functional.logsigmoid(-(features @ weights + self.bias)).cumsum(0)


@dataclass(frozen=True)
class Written:
    """A question and a solution as tokens, and how many of them are the question."""

    ids: list[int]
    given: int


def written(prompt: Prompt, text: str, tokenizer: Any) -> Written:
    """A question and its solution as the embedded model sees them."""
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    asked = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    given = tokenizer.encode(asked, add_special_tokens=False)
    return Written([*given, *tokenizer.encode(text, add_special_tokens=False)], len(given))


def features_of(model: Any, texts: Sequence[Written]) -> list[torch.Tensor]:
    """Log-odds of each token of each solution, and of the likeliest in its place; (tokens, 2) each.

    Args:
        model: the embedded model in transformers.
        texts: each with a question; of like lengths, for all are padded to the longest.
    """
    ids = torch.full((len(texts), max(len(text.ids) for text in texts)), PAD)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
    with torch.inference_mode():
        # Padding is on the right and attention is causal, so no mask is needed.
        known = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    features = []
    for row, text in enumerate(texts):
        places = torch.arange(text.given - 1, len(text.ids) - 1)
        told = known[row, places]
        chosen = told.gather(1, ids[row, places + 1, None])[:, 0]
        features.append(torch.stack([_log_odds(chosen), _log_odds(told.amax(1))], 1))
    return features


def _log_odds(logprob: torch.Tensor) -> torch.Tensor:
    others = torch.log(-torch.expm1(logprob.clamp(max=-1e-7)))
    return (logprob - others).clamp(-_LARGEST, _LARGEST)
