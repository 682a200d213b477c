"""Write problems as a suite: `python -m dynasor.embedded_model.write_suite`.

Without options it writes the held-out problems again, as they are. With `--split validation` it
writes others, to tune on: no split shares a problem with another.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from dynasor.embedded_model import test_suite
from dynasor.embedded_model.problems import problems

SEED, COUNT = 2026, 500


def main() -> None:
    """Write one JSON object a problem, without the worked solution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--out", type=Path, default=test_suite())
    options = parser.parse_args()
    with options.out.open("w") as file:
        for problem in problems(options.seed, options.split, options.count):
            row = asdict(problem)
            fields = ("id", "question", "answer", "level", "family")
            file.write(json.dumps({field: row[field] for field in fields}) + "\n")


if __name__ == "__main__":
    main()
