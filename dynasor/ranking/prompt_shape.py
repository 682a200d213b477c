"""The size of a prompt, and what kinds of characters it is made of, in a few numbers."""

from __future__ import annotations

import math

from dynasor.ranking.prompt_text import split_question

SHAPE_SIZE = 8

_LOOKED_AT = 4_000
"""Characters of a question whose kinds are counted."""


def prompt_shape(prompt: str) -> list[float]:
    """Sizes of a prompt, and shares of kinds of characters; SHAPE_SIZE numbers."""
    context, question = split_question(prompt)
    looked_at = question[:_LOOKED_AT]
    size = len(looked_at) + 1
    return [
        math.log1p(len(question)),
        math.log1p(len(context)),
        math.log1p(question.count("\n")),
        math.log1p(len(question.split(None, 2_000))),
        sum(ord(c) > 127 for c in looked_at) / size,
        sum(not (c.isalnum() or c.isspace()) for c in looked_at) / size,
        sum(c.isdigit() for c in looked_at) / size,
        float("?" in question[-3:]),
    ]
