"""Train the embedded process reward model: `python -m dynasor.embedded_model.train_reward`.

A copy of the embedded model whose head is one number: the log-odds that a solution is right up to
this line. It learns from what `label_steps` wrote; one pass over a solution teaches all its lines.
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
    """One solution as tokens: where its lines end, and whether all is right up to there."""

    ids: list[int]
    ends: list[int]
    right: list[float]


@dataclass(frozen=True)
class Batch:
    """Right-padded ids (rows, width), the rows and places of line ends, their labels."""

    ids: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    right: torch.Tensor


def example_of(solution: LabelledSolution, tokenizer: PreTrainedTokenizerBase) -> Example:
    """The tokens of a question and its solution as the model sees them."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": solution.question}], tokenize=False, add_generation_prompt=True
    )
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    ends = []
    lines = solution.text.split("\n")
    for number, line in enumerate(lines):
        rest = line if number == len(lines) - 1 else f"{line}\n"
        ids += tokenizer.encode(rest, add_special_tokens=False)
        ends.append(len(ids) - 1)
    right = [float(number < solution.good) for number in range(len(lines))]
    return Example(ids, ends, right)


def batch_of(examples: Sequence[Example]) -> Batch:
    """Examples side by side."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), PAD)
    rows, places, right = [], [], []
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        rows += [row] * len(example.ends)
        places += example.ends
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


def logits_of(model: LlamaForSequenceClassification, batch: Batch) -> torch.Tensor:
    """Log-odds at each line end; (line ends of the batch,)."""
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
    """Train until the steps or the time are used up; `keep` is called now and then."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    begin, step, epoch, average = time.monotonic(), 0, 0, 0.0
    while True:
        for part in batches(examples, options.batch_tokens, options.seed + epoch):
            minutes = (time.monotonic() - begin) / 60
            progress = step / options.steps if options.steps else minutes / options.minutes
            if progress >= 1:
                return
            warm = min(1.0, progress / WARM_UP_SHARE + 1e-2)
            share = warm * 0.5 * (1 + math.cos(math.pi * progress))
            optimizer.param_groups[0]["lr"] = options.rate * share
            batch = batch_of(part)
            loss = functional.binary_cross_entropy_with_logits(logits_of(model, batch), batch.right)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average += (0.02 if average else 1.0) * (loss.item() - average)
            step += 1
            if step % KEEP_EVERY == 0:
                keep()
            if step % 50 == 0:
                print(
                    f"step {step}  epoch {epoch}  {progress:6.1%}  loss {average:.4f}", flush=True
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
    parser.add_argument("--init", type=Path, default=path(), help="folder to begin from")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--minutes", type=float, default=15.0, help="length of the schedule")
    parser.add_argument("--steps", type=int, default=0, help="length in steps, instead of minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(path())
    model = LlamaForSequenceClassification.from_pretrained(
        options.init, num_labels=1, dtype=torch.float32, pad_token_id=PAD
    )
    examples = [
        example_of(solution, tokenizer) for file in options.data for solution in read_labels(file)
    ]
    lines = sum(len(example.ends) for example in examples)
    print(f"{len(examples)} solutions, {lines} lines", flush=True)

    def keep() -> None:
        save(model, tokenizer, options.out)

    train(model, examples, options, keep)
    keep()


if __name__ == "__main__":
    main()
