"""Measure the process reward model: `python -m dynasor.embedded_model.evaluate_reward SAMPLES`.

SAMPLES is a trace of the embedded model with texts and right answers, such as the `samples.jsonl` of
`dynasor bench embedded`. For each line of each solution the model says how probable it is that all is
right so far; the AUC is the probability that it says more of a solution that ends in the right answer
than of one that does not, for lines at the same part of their solutions. Within a question only
solutions of the same question are compared, which is what a search does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from dynasor.embedded_model import path, reward_path
from dynasor.embedded_model.slips import Slips, Written, features_of, written
from dynasor.traces import TraceSample, read_traces

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Places in a solution, as shares of its lines; 1 is its end."""
ROWS = 32


@dataclass(frozen=True)
class Figures:
    """AUC of final correctness after this share of the lines: over all, and within questions."""

    share: float
    auc: float
    within: float
    solutions: int


@dataclass(frozen=True)
class Scored:
    """A solution: its question, whether its answer is right, the log-probability after each line that
    all is right so far."""

    query: str
    right: bool
    scores: tuple[float, ...]

    def at(self, share: float) -> float:
        """Log-probability after this share of the lines."""
        return self.scores[max(0, round(share * len(self.scores)) - 1)]


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Area under the ROC curve; ties count half; NaN where all are right or none is."""
    labels = np.asarray(right)
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def within_questions(solutions: Sequence[Scored], share: float) -> float:
    """Share of the pairs of a right and a wrong solution of one question that are ranked right."""
    groups: dict[str, list[Scored]] = {}
    for solution in solutions:
        groups.setdefault(solution.query, []).append(solution)
    won, pairs = 0.0, 0
    for group in groups.values():
        right = [solution.right for solution in group]
        count = sum(right) * (len(right) - sum(right))
        if count:
            won += count * auc([solution.at(share) for solution in group], right)
            pairs += count
    return won / pairs if pairs else float("nan")


def score_all(samples: Sequence[TraceSample], file: Path) -> list[Scored]:
    """Log-probability that all is right after each line of each sample, in their order."""
    tokenizer = AutoTokenizer.from_pretrained(path())
    model = AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32).eval()
    slips = Slips.read(file)
    (newline,) = tokenizer.encode("\n", add_special_tokens=False)
    texts = [_written(sample, tokenizer) for sample in samples]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place].ids))
    scored: dict[int, Scored] = {}
    for first in range(0, len(order), ROWS):
        places = order[first : first + ROWS]
        known = features_of(model, [texts[place] for place in places])
        for place, features in zip(places, known, strict=True):
            sample, ids = samples[place], torch.tensor(texts[place].ids[texts[place].given :])
            ends = ids == newline
            ends[-1] = True
            values = tuple(slips.right_so_far(features)[ends].tolist())
            scored[place] = Scored(sample.query, sample.answer == sample.gold, values)
    return [scored[place] for place in range(len(samples))]


def _written(sample: TraceSample, tokenizer: PreTrainedTokenizerBase) -> Written:
    assert sample.prompt is not None
    assert sample.text is not None
    question = sample.prompt if isinstance(sample.prompt, str) else sample.prompt[0]["content"]
    return written(question, sample.text, tokenizer)


def figures_of(solutions: Sequence[Scored]) -> list[Figures]:
    """The table."""
    right = [solution.right for solution in solutions]
    return [
        Figures(
            share,
            auc([solution.at(share) for solution in solutions], right),
            within_questions(solutions, share),
            len(solutions),
        )
        for share in SHARES
    ]


def main() -> None:
    """Read the command line, score and print the table."""
    parser = argparse.ArgumentParser(description="Measure the process reward model.")
    parser.add_argument("samples", type=Path, help="trace with texts and right answers")
    parser.add_argument("--model", type=Path, default=reward_path())
    parser.add_argument("--per-question", type=int, default=16, help="samples a question")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    samples = [
        sample
        for sample in read_traces(options.samples, skip_torn_end=True)
        if sample.text and sample.gold is not None and sample.sample < options.per_question
    ]
    if not samples:
        parser.error(f"{options.samples} holds no samples with text and right answer")
    rows = figures_of(score_all(samples, options.model))
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        return
    print(f"{rows[0].solutions} solutions\n\nafter  AUC    within questions")
    for row in rows:
        print(f"{row.share:5.0%}  {row.auc:.3f}  {row.within:.3f}")


if __name__ == "__main__":
    main()
