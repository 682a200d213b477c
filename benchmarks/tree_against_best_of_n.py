"""Tree searches against best-of-N with the same reward model, at equal tokens.

    python benchmarks/tree_against_best_of_n.py runs/embedded/full/samples.jsonl runs/programs

The first argument is a trace of the embedded model with 16 samples a question, which are scored here;
the others are folders of `benchmarks/programs.py`. For each budget n: votes by majority, weighed by
reward, and the best one, over random draws of n of the samples. Then each search that was run, against
best-of-N (weighed) with as many tokens on the same questions, between two whole n by interpolation.
Also counted: the questions on which the reward prefers a wrong sample to a right one.
95% bootstrap intervals over questions, differences paired by question.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from dynasor.bench.plots import COLOURS, STYLE  # which chooses a backend without a screen
from dynasor.embedded_model import reward_path
from dynasor.embedded_model.evaluate_reward import score_all
from dynasor.intervals import bootstrap
from dynasor.traces import read_traces

MOST = 16
PROGRAMS = ("beam-search", "dvts", "rebase", "mcts")


class Search(NamedTuple):
    """A search that was run: tokens a question, and whether it was right on each, (questions,)."""

    program: str
    name: str
    tokens: float
    right: np.ndarray


class Scored(NamedTuple):
    """A sample: its answer, whether it is right, its tokens, its reward."""

    answer: str | None
    right: bool
    tokens: int
    reward: float


Weigh = Callable[[Sequence[Scored]], Mapping[str, float]]


def majority(samples: Sequence[Scored]) -> Mapping[str, float]:
    return _summed(samples, lambda sample: 1.0)


def weighted(samples: Sequence[Scored]) -> Mapping[str, float]:
    return _summed(samples, lambda sample: sample.reward)


def best(samples: Sequence[Scored]) -> Mapping[str, float]:
    weights: dict[str, float] = {}
    for sample in samples:
        if sample.answer is not None:
            weights[sample.answer] = max(weights.get(sample.answer, 0.0), sample.reward)
    return weights


def _summed(samples: Sequence[Scored], weight: Callable[[Scored], float]) -> Mapping[str, float]:
    weights: dict[str, float] = defaultdict(float)
    for sample in samples:
        if sample.answer is not None:
            weights[sample.answer] += weight(sample)
    return weights


def is_right(samples: Sequence[Scored], weigh: Weigh) -> bool:
    """Whether the heaviest answer is right; of equals the first."""
    weights = weigh(samples)
    if not weights:
        return False
    chosen = max(weights, key=lambda answer: weights[answer])
    return next(sample.right for sample in samples if sample.answer == chosen)


def scored(trace: Path, model: Path, asked: set[str]) -> dict[str, list[Scored]]:
    """The samples of each question that was asked, with their rewards."""
    samples = (row for row in read_traces(trace) if row.query in asked)
    rows = [row for row in samples if row.text and row.sample < MOST]
    questions: dict[str, list[Scored]] = {}
    for row, judged in zip(rows, score_all(rows, model), strict=True):
        reward = float(np.exp(judged.at(1.0)))
        sample = Scored(row.answer, row.answer == row.gold, row.tokens, reward)
        questions.setdefault(row.query, []).append(sample)
    return {name: samples for name, samples in questions.items() if len(samples) == MOST}


def curve(questions: Mapping[str, Sequence[Scored]], weigh: Weigh, draws: int) -> np.ndarray:
    """Accuracy of each question for n = 1 to 16; (questions, 16)."""
    table = np.zeros((len(questions), MOST))
    for row, (name, samples) in enumerate(questions.items()):
        draw = random.Random(name)
        for _ in range(draws):
            order = draw.sample(list(samples), MOST)
            table[row] += [is_right(order[:n], weigh) for n in range(1, MOST + 1)]
    return table / draws


def interval(values: np.ndarray) -> str:
    low, high = bootstrap(values)
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def print_votes(curves: Mapping[str, np.ndarray]) -> None:
    print("| n | " + " | ".join(curves) + " | weighed less majority |")
    print("|---" * (len(curves) + 2) + "|")
    for n in (1, 2, 4, 8, 16):
        shown = [f"{100 * curve[:, n - 1].mean():.1f}" for curve in curves.values()]
        change = (curves["weighed"] - curves["majority"])[:, n - 1]
        print(f"| {n} | {' | '.join(shown)} | {100 * change.mean():+.1f} {interval(change)} |")


def print_ceiling(questions: Mapping[str, Sequence[Scored]]) -> None:
    """What no search by this reward can mend: wrong answers that it likes better than right ones."""
    missed = [samples for samples in questions.values() if not is_right(samples, best)]
    there = [samples for samples in missed if any(sample.right for sample in samples)]
    print(
        f"\nOf {len(questions)} questions the best of {MOST} is wrong on {len(missed)}. On {len(there)} "
        "of these a right sample was there, and the reward preferred a wrong one."
    )


def save_picture(
    curves: Mapping[str, np.ndarray], tokens: float, searches: Sequence[Search], path: Path
) -> None:
    """Accuracy against tokens: best-of-N as lines, searches as marks with their intervals."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.6), constrained_layout=True)
        spent = tokens * np.arange(1, MOST + 1)
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot(spent, 100 * curve.mean(axis=0), color=colour, label=f"{name} of N samples")
        for number, program in enumerate(sorted({search.program for search in searches})):
            runs = [search for search in searches if search.program == program]
            colour = COLOURS[len(curves) + number]
            at = [search.tokens for search in runs]
            means = np.array([100 * search.right.mean() for search in runs])
            ends = 100 * np.array([bootstrap(search.right) for search in runs]).T
            bars = np.abs(ends - means)
            axes.errorbar(
                at, means, yerr=bars, fmt="o", ms=5, elinewidth=0.8, color=colour, label=program
            )
        axes.set(
            xscale="log",
            xlabel="output tokens a question",
            ylabel="right answers, %",
            title="Tree searches against best-of-N at equal tokens",
        )
        axes.set_xticks(spent[[0, 1, 3, 7, 15]], [f"{x:.0f}" for x in spent[[0, 1, 3, 7, 15]]])
        axes.set_xticks([], minor=True)
        axes.legend(fontsize=8, loc="lower right")
        figure.savefig(path)
        plt.close(figure)


def outcomes_of(folders: Sequence[Path]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The outcomes of each search that was run, by its program and its name."""
    return {
        (program, f"{program}, {folder.name} {file.parent.name}"): [
            json.loads(line) for line in file.open("rb")
        ]
        for folder in folders
        for program in PROGRAMS
        for file in sorted((folder / program).glob("*/outcomes.jsonl"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", help="--out of benchmarks/programs.py")
    parser.add_argument("--model", type=Path, default=reward_path())
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--picture", type=Path, help="file for the picture")
    options = parser.parse_args()
    searched = outcomes_of(options.runs)
    asked = {row["query"] for rows in searched.values() for row in rows}
    questions = scored(options.trace, options.model, asked)
    rules = {"majority": majority, "weighed": weighted, "best": best}
    curves = {name: curve(questions, weigh, options.draws) for name, weigh in rules.items()}
    print_votes(curves)
    print_ceiling(questions)
    place = {name: row for row, name in enumerate(questions)}
    tokens = np.array([np.mean([s.tokens for s in rows]) for rows in questions.values()])
    searches = []
    print(
        "\n| search | questions | accuracy, % | tokens | n | best-of-n there, % | search less it |"
    )
    print("|---|---|---|---|---|---|---|")
    for (program, name), lines in searched.items():
        outcomes = [row for row in lines if row["query"] in place]
        rows = [place[outcome["query"]] for outcome in outcomes]
        right = np.array([float(outcome["correct"]) for outcome in outcomes])
        spent = float(np.mean([outcome["tokens"] for outcome in outcomes]))
        n = float(np.clip(spent / tokens[rows].mean(), 1, MOST))
        rival = np.array([np.interp(n, range(1, MOST + 1), curves["weighed"][r]) for r in rows])
        less = right - rival
        print(
            f"| {name} | {len(rows)} | {100 * right.mean():.1f} | {spent:,.0f} | {n:.1f} "
            f"| {100 * rival.mean():.1f} | {100 * less.mean():+.1f} {interval(less)} |"
        )
        searches.append(Search(program, name, spent, right))
    if options.picture is not None:
        save_picture(curves, float(tokens.mean()), searches, options.picture)


if __name__ == "__main__":
    main()
