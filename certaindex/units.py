"""What may follow a number in an answer: words of scale, well-known units, other nouns."""

from __future__ import annotations

import re
from collections.abc import Sequence

SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
"""Words that multiply the number before them."""

_UNITS = {
    spelling: names.split()[0]
    for names in (
        "mm millimeter millimeters millimetre millimetres",
        "cm centimeter centimeters centimetre centimetres",
        "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres",
        "in inch inches",
        "ft foot feet",
        "yd yard yards",
        "mi mile miles",
        "mg milligram milligrams",
        "g gram grams",
        "kg kilogram kilograms",
        "lb lbs pound pounds",
        "oz ounce ounces",
        "ml mL milliliter milliliters millilitre millilitres",
        "L liter liters litre litres",
        "s sec secs second seconds",
        "min mins minute minutes",
        "h hr hrs hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years yr yrs",
        "cent cents",
        "dollar dollars USD usd",
        "degree degrees deg ^\\circ",
        "radian radians rad",
        "mph",
        "km/h kph",
        "m/s",
    )
    for spelling in names.split()
}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_WORD = re.compile(r"[A-Za-z]{3,}")
_NO_UNITS = frozenset(
    [
        "and",
        "ago",
        "base",
        "choose",
        "cos",
        "cot",
        "csc",
        "cubed",
        "exp",
        "factorial",
        "gcd",
        "half",
        "halves",
        "iff",
        "inf",
        "infinity",
        "lcm",
        "log",
        "max",
        "min",
        "minus",
        "mod",
        "modulo",
        "not",
        "over",
        "plus",
        "root",
        "sec",
        "sin",
        "sqrt",
        "squared",
        "tan",
        "than",
        "then",
        "third",
        "thirds",
        "times",
        "quarter",
        "quarters",
        "fifths",
        "sixths",
    ]
)
"""Words after a number that change its value, or are mathematics."""


def known_unit(words: Sequence[str]) -> str | None:
    """Symbol of a well-known unit: `["square", "feet"]` and `["ft^2"]` are `ft^2`; else None."""
    if len(words) == 2 and words[0] in _POWERS and words[1] in _UNITS:
        return _UNITS[words[1]] + _POWERS[words[0]]
    if len(words) != 1:
        return None
    name, caret, power = words[0].rpartition("^")
    if caret and power in ("2", "3") and name in _UNITS:
        return _UNITS[name] + caret + power
    return _UNITS.get(words[0])


def may_be_unit(word: str) -> bool:
    """Whether a word after a number may be a noun that is counted (`apples`)."""
    return bool(_WORD.fullmatch(word)) and word.lower() not in _NO_UNITS
