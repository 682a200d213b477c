"""Write the held-out problems: `python -m dynasor.embedded_model.write_suite`."""

import json
from dataclasses import asdict

from dynasor.embedded_model import test_suite
from dynasor.embedded_model.problems import problems

SEED, COUNT = 2026, 500


def main() -> None:
    """Write `test.jsonl`, without the worked solutions."""
    with test_suite().open("w") as file:
        for problem in problems(SEED, "test", COUNT):
            row = asdict(problem)
            fields = ("id", "question", "answer", "level", "family")
            file.write(json.dumps({field: row[field] for field in fields}) + "\n")


if __name__ == "__main__":
    main()
