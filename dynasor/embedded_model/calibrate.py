"""Where the model is how good: `python -m dynasor.embedded_model.calibrate MODEL_DIR`.

Prints, for each family, the single-sample and the majority accuracy over a grid of steps and
sizes, on validation problems: what the settings in `problems.LEVELS` start from.
"""

import argparse
import random
from pathlib import Path

from dynasor.embedded_model import path
from dynasor.embedded_model.evaluate import LONGEST_SOLUTION, Sampler, level_figures
from dynasor.embedded_model.families import FAMILIES
from dynasor.embedded_model.problems import MOST_STEPS, Problem, draw, solution_text

SIZES = (30, 90, 150, 250, 400)


def grid_problems(family: str, steps: int, size: int, count: int) -> list[Problem]:
    """Validation problems of one point of the grid."""
    rng = random.Random(f"{family}-{steps}-{size}")
    drafts = [draw(rng, "validation", family, steps, size) for _ in range(count)]
    return [Problem("", family, 0, d.question, solution_text(d), str(d.answer)) for d in drafts]


def main() -> None:
    """Sample every point of the grid and print a line for it."""
    parser = argparse.ArgumentParser(description="Accuracy by steps and size, for each family.")
    parser.add_argument("model", type=Path, nargs="?", default=path(), metavar="MODEL_DIR")
    parser.add_argument("--problems", type=int, default=12, help="problems a point of the grid")
    parser.add_argument("--samples", type=int, default=8)
    arguments = parser.parse_args()
    if not (arguments.model / "config.json").is_file():
        parser.error(f"no model in {arguments.model}")
    sampler = Sampler(arguments.model)
    print("family     steps  size  single  majority  tokens")
    for family in FAMILIES:
        most = MOST_STEPS[family]
        for steps in sorted({1, 2, most // 3, most // 2, most * 3 // 4, most}):
            for size in SIZES:
                asked = grid_problems(family, steps, size, arguments.problems)
                prompts = [sampler.prompt(problem.question) for problem in asked]
                drawn = sampler.sample(prompts, arguments.samples, LONGEST_SOLUTION)
                row = level_figures(0, asked, drawn)
                print(
                    f"{family:9}  {steps:5}  {size:4}  {row.single:6.1%}  {row.majority:8.1%}"
                    f"  {row.tokens:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
