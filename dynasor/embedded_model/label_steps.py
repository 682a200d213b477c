"""Label steps of sampled solutions: `python -m dynasor.embedded_model.label_steps --out FILE`.

The embedded model samples solutions of problems, and the worked solution that the generator wrote
says up to which character each of them is right: the data that `train_reward` learns from. A step is
right when it and all before it are the worked ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from dynasor.embedded_model import path
from dynasor.embedded_model.evaluate import LONGEST_SOLUTION, Sampler
from dynasor.embedded_model.problems import Problem, problems

CHUNK = 250
"""Problems sampled at a time, so that a stopped run keeps what it has."""


@dataclass(frozen=True)
class LabelledSolution:
    """A sampled solution.

    Attributes:
        problem: id.
        level: 1 to 5.
        question: what was asked.
        text: the solution.
        right: how many of its characters, from the first, are those of the worked solution.
        correct: whether its answer is right.
    """

    problem: str
    level: int
    question: str
    text: str
    right: int
    correct: bool


def labelled(problem: Problem, text: str) -> LabelledSolution:
    """A sampled solution of a problem, compared with the worked one."""
    pairs = zip(text, problem.solution, strict=False)
    right = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    correct = text.split("\n")[-1] == problem.solution.split("\n")[-1]
    return LabelledSolution(problem.id, problem.level, problem.question, text, right, correct)


def read_labels(file: Path) -> Iterator[LabelledSolution]:
    """The solutions of a file that this module wrote."""
    for line in file.read_text(encoding="utf-8").splitlines():
        yield LabelledSolution(**json.loads(line))


def main() -> None:
    """Sample and write one JSON object a solution."""
    parser = argparse.ArgumentParser(description="Sample solutions and label their steps.")
    parser.add_argument("model", type=Path, nargs="?", default=path(), metavar="MODEL_DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=["train", "validation"], default="train")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    sampler = Sampler(options.model)
    asked = list(problems(options.seed, options.split, options.problems))
    with options.out.open("w", encoding="utf-8") as file:
        for first in range(0, len(asked), CHUNK):
            part = asked[first : first + CHUNK]
            prompts = [sampler.prompt(problem.question) for problem in part]
            drawn = sampler.sample(prompts, options.samples, LONGEST_SOLUTION)
            for problem, group in zip(part, drawn, strict=True):
                for text in [sample.text for sample in group]:
                    file.write(json.dumps(asdict(labelled(problem, text))) + "\n")
            file.flush()
            print(f"{first + len(part)} problems", flush=True)


if __name__ == "__main__":
    main()
