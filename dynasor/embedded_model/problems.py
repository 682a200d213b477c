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
    "story": ((2, 20), (4, 60), (9, 90), (12, 150), (12, 280)),
    "order": ((1, 150), (2, 90), (4, 110), (6, 150), (6, 300)),
    "clock": ((1, 40), (3, 60), (5, 80), (8, 100), (10, 200)),
    "wheel": ((1, 25), (2, 40), (4, 90), (5, 120), (8, 200)),
    "unwind": ((2, 20), (4, 50), (7, 90), (10, 150), (12, 280)),
    "chain_sum": ((2, 100), (4, 100), (8, 100), (7, 300), (12, 300)),
}
"""For each family and level 1..5: the number of steps and the size of the numbers."""

MOST_TRIES = 2000
"""Draws before a setting is held to have too few different problems."""

MOST_STEPS = {"story": 12, "order": 6, "clock": 10, "wheel": 8, "unwind": 12, "chain_sum": 12}
SMALLEST, LARGEST = 8, 300
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
    for _ in range(MOST_TRIES):
        draft = FAMILIES[family](rng, steps, size)
        if split_of(family, draft.content) == split:
            return draft
    raise ValueError(f"no {split} problem of {family} with {steps} steps of size {size}")


def draw_training(rng: random.Random) -> Draft:
    """A training problem from the whole continuum of difficulties, easier ones more often."""
    family = rng.choice(list(FAMILIES))
    steps = 1 + int(MOST_STEPS[family] * rng.random() ** 1.5)
    size = round(SMALLEST * (LARGEST / SMALLEST) ** rng.random())
    return draw(rng, "train", family, steps, size)


def _unseen(
    rng: random.Random, split: Split, family: str, steps: int, size: int, seen: set[str]
) -> Draft:
    for _ in range(MOST_TRIES):
        draft = draw(rng, split, family, steps, size)
        if draft.content not in seen:
            return draft
    raise ValueError(f"too few {split} problems of {family} with {steps} steps of size {size}")


def problems(seed: int, split: Split, count: int) -> Iterator[Problem]:
    """`count` different problems, levels 1 to 5 in turn and families in turn within a level."""
    rng = random.Random(seed)
    names = list(FAMILIES)
    seen: set[str] = set()
    for index in range(count):
        level, family = index % 5 + 1, names[index // 5 % len(names)]
        steps, size = LEVELS[family][level - 1]
        draft = _unseen(rng, split, family, steps, size, seen)
        seen.add(draft.content)
        yield Problem(
            id=f"{split}-{index:03d}",
            family=family,
            level=level,
            question=draft.question,
            solution=solution_text(draft),
            answer=str(draft.answer),
        )
