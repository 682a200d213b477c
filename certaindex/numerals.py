r"""Plain numbers among answers, compared exactly and without computer algebra."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

MAX_NUMBER_CHARS = 200
"""Longer than any number that is an answer; reading a number takes quadratic time in its digits."""

_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<value>{_DECIMAL})(?:/(?P<below>{_DECIMAL}))?"
    r"|\\frac\{(?P<top>-?\d+)\}\{(?P<bottom>-?\d+)\})(?P<rest>.*)"
)
_UNIT = re.compile(
    r"\s*(?:(?P<percent>%|percent)|(?P<unit>\^\\circ|degrees?|dollars?|cents?|"
    r"(?:square |cubic |sq )?(?:units?|cm|mm|km|m|meters?|metres?|centimeters?|kilometers?|"
    r"inch(?:es)?|in|feet|foot|ft|yards?|miles?|mph|kg|grams?|g|pounds?|lbs?|hours?|hrs?|minutes?|"
    r"mins?|seconds?|secs?|days?|weeks?|months?|years?)(?:\^\{?[23]\}?)?))\s*",
    re.IGNORECASE,
)


class Number(NamedTuple):
    """A value, whether it is written in percent, and its unit (empty for none)."""

    value: Fraction
    percent: bool
    unit: str

    def same(self, other: Number) -> bool:
        """Equal values; a unit or a percent sign that only one of the two has does not matter.

        So `50%` is `50`, and it is `0.5`: both spellings are in use.
        """
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if self.value == other.value:
            return True
        if self.percent != other.percent:
            part, whole = (self, other) if self.percent else (other, self)
            return part.value == 100 * whole.value
        return False


def parse_number(text: str) -> Number | None:
    r"""An integer, decimal, `a/b` or `\frac{a}{b}` with an optional unit; None for anything else.

    Args:
        text: a canonical string (`certaindex.canonical`).
    """
    if len(text) > MAX_NUMBER_CHARS or not text.isascii():
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    rest = _UNIT.fullmatch(match["rest"]) if match["rest"].strip() else None
    if match["rest"].strip() and rest is None:
        return None
    above, below = match["value"] or match["top"], match["below"] or match["bottom"] or "1"
    if Fraction(below) == 0:
        return None
    value = Fraction(above) / Fraction(below)
    return Number(
        -value if match["sign"] == "-" else value,
        bool(rest and rest["percent"]),
        (rest["unit"] or "").lower().rstrip("s") if rest else "",
    )
