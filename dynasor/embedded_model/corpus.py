"""From problems to token sequences: the tokenizer, the chat format and the training batches."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dynasor.embedded_model.families import Draft
from dynasor.embedded_model.problems import PROBE_SUFFIX, draw_training, solution_text

END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"
SPECIAL = (END, PAD, USER, ASSISTANT)
VOCABULARY = 768
PROBE_SHARE = 0.13
POOL = 4096
"""Sequences drawn at a time, then sorted by length, so that batches need little padding."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}<|user|>{{ message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}<|assistant|>{{ message['content'] }}<|end|>"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
"""System messages are left out: the model has never seen one."""


def train_tokenizer(seed: int, samples: int = 12000) -> Tokenizer:
    """A byte-level BPE of `VOCABULARY` tokens in which every digit and newline stands alone."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    # Operators keep their blanks (" + " is one token); a newline never joins what is before it,
    # so that a text cut anywhere and a probe suffix tokenize as the two parts do.
    words = Regex(r"\d| ?\p{L}+| ?[^\s\p{L}\d]+ ?|\n| +|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    drafts = (draw_training(rng) for _ in range(samples))
    texts = (draft.question + solution_text(draft) + PROBE_SUFFIX for draft in drafts)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids and, at the same places, whether the token is to be learned."""

    ids: torch.Tensor
    learned: torch.Tensor


class Corpus:
    """An endless stream of training batches of about `batch_tokens` tokens, given by the seed."""

    def __init__(self, tokenizer: Tokenizer, seed: int, batch_tokens: int, longest: int) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._batch_tokens = batch_tokens
        self._longest = longest
        # The special tokens are the first of the vocabulary, in this order.
        self._end, self._pad, self._user, self._assistant = range(len(SPECIAL))
        self._suffix: list[int] = tokenizer.encode(PROBE_SUFFIX).ids

    def __iter__(self) -> Iterator[Batch]:
        while True:
            pool = sorted(
                (self._sequence(draw_training(self._rng)) for _ in range(POOL)), key=_size
            )
            batches: list[list[tuple[list[int], int]]] = []
            rows: list[tuple[list[int], int]] = []
            for row in (row for row in pool if _size(row) <= self._longest):
                if rows and _size(row) * (len(rows) + 1) > self._batch_tokens:
                    batches.append(rows)
                    rows = []
                rows.append(row)
            self._rng.shuffle(batches)
            yield from (self._padded(rows) for rows in batches)

    def _sequence(self, draft: Draft) -> tuple[list[int], int]:
        """Token ids and the number of them at the start that are given, not learned."""
        question = self._tokenizer.encode(draft.question).ids
        solution = self._tokenizer.encode(solution_text(draft)).ids
        given = [self._user, *question, self._assistant]
        if self._rng.random() >= PROBE_SHARE:
            return [*given, *solution, self._end], len(given)
        cut = self._rng.randint(0, len(solution))
        given = [*given, *solution[:cut], *self._suffix]
        return [*given, *self._tokenizer.encode(f"{draft.answer}}}").ids, self._end], len(given)

    def _padded(self, rows: list[tuple[list[int], int]]) -> Batch:
        width = max(_size(row) for row in rows)
        ids = torch.full((len(rows), width), self._pad)
        learned = torch.zeros((len(rows), width), dtype=torch.bool)
        for place, (tokens, given) in enumerate(rows):
            ids[place, : len(tokens)] = torch.tensor(tokens)
            learned[place, given : len(tokens)] = True
        return Batch(ids, learned)


def _size(row: tuple[list[int], int]) -> int:
    return len(row[0])


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer and the chat template the way transformers and vLLM read them."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
