"""Problems in words with worked solutions, drawn from the families at five difficulty levels.

Everything follows from a seed. Whether a problem may be trained on is decided by a hash of what
it asks (its numbers and operations, without names and wording), so that training and test
problems are disjoint by construction.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dynasor.embedded_model.families import FAMILIES, Draft

PROBE_SUFFIX = "\nFinal answer so far: \\boxed{"
"""What one appends to an unfinished solution to learn the answer that it would give now."""

Split = Literal["train", "validation", "test"]

LEVELS: dict[str, tuple[tuple[int, int], ...]] = {
    "story": ((2, 15), (3, 40), (6, 90), (9, 200), (14, 400)),
    "order": ((1, 15), (2, 40), (3, 90), (5, 200), (7, 400)),
    "clock": ((1, 20), (2, 40), (5, 60), (8, 100), (12, 200)),
    "wheel": ((2, 12), (3, 30), (4, 90), (7, 200), (10, 400)),
    "unwind": ((1, 15), (3, 40), (6, 90), (9, 200), (14, 400)),
    "chain_sum": ((2, 9), (3, 40), (6, 90), (9, 200), (14, 400)),
}
"""For each family and level 1..5: the number of steps and the size of the numbers."""

MOST_STEPS = {"story": 12, "order": 6, "clock": 10, "wheel": 8, "unwind": 12, "chain_sum": 12}
SMALLEST, LARGEST = 8, 900
"""The continuum that training draws from: 1 to `MOST_STEPS` steps, sizes in this range."""


@dataclass(frozen=True)
class Problem:
    """A problem, its worked solution (which ends in the boxed answer) and the answer alone."""

    id: str
    family: str
    level: int
    question: str
    solution: str
    answer: str


def split_of(family: str, content: str) -> Split:
    """Where a problem belongs: 5 % each of all contents are for test and for validation."""
    digest = hashlib.sha256(f"{family}|{content}".encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 20
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def solution_text(draft: Draft) -> str:
    """The worked solution as the model writes it."""
    return "\n".join((*draft.lines, f"The answer is \\boxed{{{draft.answer}}}."))


def draw(rng: random.Random, split: Split, family: str, steps: int, size: int) -> Draft:
    """A problem of this family and difficulty that belongs to the split."""
    while True:
        draft = FAMILIES[family](rng, steps, size)
        if split_of(family, draft.content) == split:
            return draft


def draw_training(rng: random.Random) -> Draft:
    """A training problem from the whole continuum of difficulties, easier ones more often."""
    family = rng.choice(list(FAMILIES))
    steps = 1 + int(MOST_STEPS[family] * rng.random() ** 1.3)
    size = round(SMALLEST * (LARGEST / SMALLEST) ** rng.random())
    return draw(rng, "train", family, steps, size)


def problems(seed: int, split: Split, count: int) -> Iterator[Problem]:
    """`count` different problems, levels 1 to 5 in turn and families in turn within a level."""
    rng = random.Random(seed)
    names = list(FAMILIES)
    seen: set[str] = set()
    for index in range(count):
        level, family = index % 5 + 1, names[index // 5 % len(names)]
        steps, size = LEVELS[family][level - 1]
        draft = draw(rng, split, family, steps, size)
        while draft.content in seen:
            draft = draw(rng, split, family, steps, size)
        seen.add(draft.content)
        yield Problem(
            id=f"{split}-{index:03d}",
            family=family,
            level=level,
            question=draft.question,
            solution=solution_text(draft),
            answer=str(draft.answer),
        )
