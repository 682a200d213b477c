"""Train the embedded process reward model: `python -m dynasor.embedded_model.train_reward`.

The embedded model with layers on top and a head of one number: the log-odds that a solution is right up
to this token. The layers below stay as they are. What they would write next they know only after the
last of them, so that no layer is left that could compare it with what is written; the new ones can. It
learns from what `label_steps` wrote; one pass over a solution teaches all its tokens.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoTokenizer, LlamaForSequenceClassification, PreTrainedTokenizerBase

from dynasor.embedded_model import path
from dynasor.embedded_model.label_steps import LabelledSolution, read_labels

PAD = 1
WARM_UP_SHARE = 0.03
KEEP_EVERY = 250
"""Steps between two writings of the model, so that a stopped run leaves one."""


@dataclass(frozen=True)
class Example:
    """A question and a solution as tokens.

    Attributes:
        ids: of both.
        given: how many of them are the question.
        right: for each token of the solution, 1 where all is right up to its end, else 0.
    """

    ids: list[int]
    given: int
    right: list[float]


@dataclass(frozen=True)
class Batch:
    """Right-padded ids (rows, width), the rows and places of solutions' tokens, their labels."""

    ids: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    right: torch.Tensor


def example_of(solution: LabelledSolution, tokenizer: PreTrainedTokenizerBase) -> Example:
    """The tokens of a question and its solution as the model sees them."""
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": solution.question}], tokenize=False, add_generation_prompt=True
    )
    asked = tokenizer.encode(chat, add_special_tokens=False)
    written = tokenizer(solution.text, add_special_tokens=False, return_offsets_mapping=True)
    right = [float(end <= solution.right) for _, end in written["offset_mapping"]]
    return Example([*asked, *written["input_ids"]], len(asked), right)


def batch_of(examples: Sequence[Example]) -> Batch:
    """Examples side by side."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), PAD)
    rows: list[int] = []
    places: list[int] = []
    right: list[float] = []
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        rows += [row] * len(example.right)
        places += range(example.given, len(example.ids))
        right += example.right
    return Batch(ids, torch.tensor(rows), torch.tensor(places), torch.tensor(right))


def batches(examples: list[Example], tokens: int, seed: int) -> Iterator[list[Example]]:
    """One epoch in random order, like lengths together, about `tokens` tokens a batch."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    made: list[list[Example]] = [[]]
    for example in ordered:
        if made[-1] and len(example.ids) * (len(made[-1]) + 1) > tokens:
            made.append([])
        made[-1].append(example)
    random.Random(seed).shuffle(made)
    yield from made


def deepened(folder: Path, layers: int) -> LlamaForSequenceClassification:
    """The model of a folder with so many new layers, which change nothing yet, and a new head.

    Only the new parts and the last norm are to be trained.
    """
    below = LlamaForSequenceClassification.config_class.from_pretrained(folder).num_hidden_layers
    model = LlamaForSequenceClassification.from_pretrained(
        folder,
        num_labels=1,
        num_hidden_layers=below + layers,
        dtype=torch.float32,
        pad_token_id=PAD,
    )
    new = model.model.layers[below:]
    for layer in new:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    model.requires_grad_(False)
    for part in (new, model.model.norm, model.score):
        part.requires_grad_(True)
    return model


def logits_of(model: LlamaForSequenceClassification, batch: Batch) -> torch.Tensor:
    """Log-odds at each token of the solutions; (tokens of the batch,)."""
    # Padding is on the right and attention is causal, so no mask is needed.
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    scores: torch.Tensor = model.score(hidden[batch.rows, batch.places]).squeeze(-1)
    return scores


def train(
    model: LlamaForSequenceClassification,
    examples: list[Example],
    options: argparse.Namespace,
    keep: Callable[[], None],
) -> None:
    """Train until the steps are used up; `keep` is called now and then."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    begin, step, epoch, average = time.monotonic(), 0, 0, 0.0
    while True:
        for part in batches(examples, options.batch_tokens, options.seed + epoch):
            progress = step / options.steps
            if progress >= 1:
                return
            warm = min(1.0, progress / WARM_UP_SHARE + 1e-2)
            share = warm * 0.5 * (1 + math.cos(math.pi * progress))
            optimizer.param_groups[0]["lr"] = options.rate * share
            batch = batch_of(part)
            loss = functional.binary_cross_entropy_with_logits(logits_of(model, batch), batch.right)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average += (0.02 if average else 1.0) * (loss.item() - average)
            step += 1
            if step % KEEP_EVERY == 0:
                keep()
            if step % 50 == 0:
                minutes = (time.monotonic() - begin) / 60
                print(
                    f"step {step}  epoch {epoch}  {minutes:.1f} min  loss {average:.4f}", flush=True
                )
        epoch += 1


def save(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write a folder that transformers and vLLM's pooling read: bf16 weights, tokenizer."""
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.config.dtype = "bfloat16"
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the embedded process reward model.")
    parser.add_argument("data", type=Path, nargs="+", help="files of label_steps")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--layers", type=int, default=2, help="new layers")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--steps", type=int, default=3000, help="length of the schedule")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(path())
    model = deepened(path(), options.layers)
    # Of an easy problem most samples are the same text, which needs to be seen once.
    solutions = {
        (solution.question, solution.text): solution
        for file in options.data
        for solution in read_labels(file)
    }
    examples = [example_of(solution, tokenizer) for solution in solutions.values()]
    tokens = sum(len(example.right) for example in examples)
    print(f"{len(examples)} solutions, {tokens} tokens", flush=True)

    def keep() -> None:
        save(model, tokenizer, options.out)

    train(model, examples, options, keep)
    keep()


if __name__ == "__main__":
    main()
