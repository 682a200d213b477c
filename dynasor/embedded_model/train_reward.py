"""Train the embedded process reward model: `python -m dynasor.embedded_model.train_reward`.

Learns from what `label_steps` wrote where slips happen; see `slips`. It takes about a minute, most of it
for the embedded model to read the solutions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from dynasor.embedded_model import path, reward_path
from dynasor.embedded_model.label_steps import LabelledSolution, read_labels
from dynasor.embedded_model.slips import Slips, features_of, written

ROWS = 32


def right_tokens(solution: LabelledSolution, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens of a solution, from the first, are right."""
    offsets = tokenizer(solution.text, add_special_tokens=False, return_offsets_mapping=True)
    return sum(end <= solution.right for _, end in offsets["offset_mapping"])


def fit(features: torch.Tensor, slipped: torch.Tensor) -> Slips:
    """Maximum likelihood: logistic regression of slips on log-odds.

    Args:
        features: (tokens, 2) of tokens before which all was right.
        slipped: (tokens,) 1 where the token is the first wrong one, else 0.
    """
    known = features.double().numpy()
    inputs = np.column_stack([known, np.ones(len(known))])
    labels = slipped.double().numpy()

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = inputs @ weights
        value = float(np.mean(np.logaddexp(0, odds) - labels * odds))
        return value, inputs.T @ (expit(odds) - labels) / len(labels)

    chosen, best, bias = map(float, minimize(loss, np.zeros(3), jac=True).x)
    return Slips(bias, chosen, best)


def exposed(solutions: Sequence[LabelledSolution]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens up to the first wrong one of each solution: their features, and whether it is that."""
    tokenizer = AutoTokenizer.from_pretrained(path())
    model = AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32).eval()
    ordered = sorted(solutions, key=lambda each: len(each.question) + len(each.text))
    features, slipped = [], []
    for first in range(0, len(ordered), ROWS):
        part = ordered[first : first + ROWS]
        texts = [written(each.question, each.text, tokenizer) for each in part]
        for solution, known in zip(part, features_of(model, texts), strict=True):
            right = right_tokens(solution, tokenizer)
            features.append(known[: right + 1])
            slipped.append(torch.arange(len(features[-1])) == right)
    return torch.cat(features), torch.cat(slipped)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the embedded process reward model.")
    parser.add_argument("data", type=Path, nargs="+", help="files of label_steps")
    parser.add_argument("--out", type=Path, default=reward_path(), help="file for the model")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    solutions = [solution for file in options.data for solution in read_labels(file)]
    features, slipped = exposed(solutions)
    slips = fit(features, slipped)
    slips.write(options.out)
    print(f"{len(solutions)} solutions, {len(slipped)} tokens, {int(slipped.sum())} slips: {slips}")


if __name__ == "__main__":
    main()
