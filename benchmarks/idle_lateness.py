"""Which deadlines vanilla self-consistency misses on an idle cluster, by the lengths of its samples.

    python benchmarks/idle_lateness.py TRACE... [--samples 64] [--scale 5]

Alone, a query lasts about as long as the longest of its samples. A deadline of `scale` times the median
of its class is missed by the share printed here whatever the rate: for all questions of a file in one
class, for fifths of them by mean length, and for each question as a class of its own.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dynasor.bench.recorded import collect_questions
from dynasor.bench.simulated_stage import suite_of
from dynasor.traces import read_traces


def late(
    longest: Mapping[str, Sequence[int]], class_of: Callable[[str], str], scale: float
) -> float:
    """Share of queries beyond `scale` times the median of their class."""
    classes: dict[str, list[int]] = {}
    for question, values in longest.items():
        classes.setdefault(class_of(question), []).extend(values)
    beyond = [value > scale * np.median(values) for values in classes.values() for value in values]
    return float(np.mean(beyond))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--scale", type=float, default=5.0)
    parser.add_argument("--draws", type=int, default=20, help="of samples, a question")
    options = parser.parse_args()
    print(
        f"{options.samples} samples, x{options.scale:g}; late alone: one class, fifths, by question"
    )
    for path in options.traces:
        questions = collect_questions(read_traces(path))
        fifths = {q.id: str(q.meta["level"]) for q in suite_of(path.name, questions).queries}
        draw = random.Random(0)
        longest = {
            name: [
                max(draw.sample(question.query.tokens, options.samples))
                for _ in range(options.draws)
            ]
            for name, question in questions.items()
        }
        shares = [
            late(longest, class_of, options.scale)
            for class_of in (lambda _: "all", fifths.__getitem__, lambda question: question)
        ]
        print(path.name, *(f"{100 * share:.1f}%" for share in shares))


if __name__ == "__main__":
    main()
