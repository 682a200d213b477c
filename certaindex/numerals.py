"""Answers that are plain numbers, compared exactly and without a computer algebra system."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

MOST_DIGITS = 200
"""More digits than any answer has; beyond, converting a text to a number takes quadratic time."""

_DECIMAL = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_PLAIN = re.compile(rf"({_DECIMAL})(?:/({_DECIMAL}))?")
_FRAC_BRACED = re.compile(r"([+-]?)\\frac\{(-?\d+)\}\{(-?\d+)\}")
_FRAC_SHORT = re.compile(r"([+-]?)\\frac(\d)(\d)")


def plain_number(text: str) -> Fraction | None:
    r"""The value of an integer, decimal, `a/b` or `\frac{a}{b}`; None for anything else."""
    if not text or len(text) > MOST_DIGITS:
        return None
    match = _PLAIN.fullmatch(text)
    if match:
        below = Fraction(match.group(2)) if match.group(2) else Fraction(1)
        return Fraction(match.group(1)) / below if below else None
    match = _FRAC_BRACED.fullmatch(text) or _FRAC_SHORT.fullmatch(text)
    if match and int(match.group(3)):
        value = Fraction(int(match.group(2)), int(match.group(3)))
        return -value if match.group(1) == "-" else value
    return None


class _Number:
    def __init__(self, value: Fraction) -> None:
        self.value = value

    def same(self, other: _Number) -> bool:
        return self.value == other.value


def parse_number(text: str) -> _Number | None:
    value = plain_number(text)
    return None if value is None else _Number(value)
