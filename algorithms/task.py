"""What any program is given to work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from algorithms.program import Prompt, Sampling
from certaindex.equivalence import AnswerGroups


@dataclass(frozen=True, slots=True)
class Task:
    """A question, how its requests are drawn, and how answers are read and compared.

    Attributes:
        id: name of the query.
        prompt: what the model is asked.
        sampling: how requests are drawn; request `i` gets the seed `sampling.seed + i`.
        extract: reads the answer out of a text, None where there is none.
        groups: groups equivalent answers; one fresh object a program.
    """

    id: str
    prompt: Prompt
    sampling: Sampling
    extract: Callable[[str], str | None]
    groups: AnswerGroups
