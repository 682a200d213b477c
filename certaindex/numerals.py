"""Plain numbers: what can be read and compared exactly without computer algebra.

Integers, decimals, repeating decimals, simple fractions, powers of ten, percentages and amounts
with a unit, all as `fractions.Fraction`. Input is a canonical string (`certaindex.canonical`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from certaindex.units import SCALES, known_unit, may_be_unit

MAX_DIGITS = 1_000
"""Most digits in one number: as many as an answer has characters, and far below the 4,300 at which
Python itself refuses to convert."""

_UNSIGNED = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_AMOUNT = re.compile(rf"([+-]?)({_UNSIGNED})(.*)", re.DOTALL)
_LATEX_FRACTION = re.compile(r"([+-]?)\\frac\{([+-]?)([0-9]+)\}\{([+-]?)([0-9]+)\}(.*)", re.DOTALL)
_FRACTION = re.compile(r"([+-]?)([0-9]+)/([0-9]+)(.*)", re.DOTALL)
_REPEATING = re.compile(r"([+-]?)([0-9]*)\.([0-9]*)\\overline\{([0-9]+)\}")
# At most three digits: 10^999 is still cheap, and nobody answers with more.
_POWER_OF_TEN = re.compile(
    rf"([+-]?)({_UNSIGNED})(?:(?:\\times|\\cdot) ?10\^(?:\{{(-?[0-9]{{1,3}})\}}|([0-9]))"
    r"|[eE]([+-]?[0-9]{1,3}))"
)
# After a number without a space only what cannot be a product: "5m" is five times m.
_CLOSE_UNITS = frozenset((r"^\circ", "mm", "cm", "km", "kg", "mL", "ml"))


class Number(NamedTuple):
    """A plain number as written.

    Attributes:
        value: exact value; of `50%` it is 50.
        percent: whether a percent sign or the word follows.
        unit: symbol of a well-known unit, None where there is none or an unknown one.
    """

    value: Fraction
    percent: bool = False
    unit: str | None = None

    def same(self, other: Number) -> bool:
        """Whether both mean the same amount.

        `p%` equals both `p` (the question asked for a percentage) and `p/100` (its value). A unit
        counts only where both name a well-known one: the question fixes it otherwise.
        """
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if self.percent == other.percent:
            return self.value == other.value
        percent, plain = (self, other) if self.percent else (other, self)
        return plain.value in (percent.value, percent.value / 100)


def parse_number(text: str) -> Number | None:
    """The plain number that a canonical answer is, or None if it is anything else."""
    # Checked here so that no long text is kept as a key of the cache.
    return _parse(text) if len(text) <= MAX_DIGITS else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Number | None:
    for pattern, read in (
        (_REPEATING, _repeating),
        (_POWER_OF_TEN, _power_of_ten),
        (_LATEX_FRACTION, _latex_fraction),
        (_FRACTION, _fraction),
        (_AMOUNT, _amount),
    ):
        if match := pattern.fullmatch(text):
            return read(match)
    return None


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").removesuffix("."))


def _signed(value: Fraction, *signs: str) -> Fraction:
    return -value if signs.count("-") % 2 else value


def _repeating(match: re.Match[str]) -> Number:
    sign, whole, fixed, period = match.groups()
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed or "0"), scale)
    value += Fraction(int(period), (10 ** len(period) - 1) * scale)
    return Number(_signed(value, sign))


def _power_of_ten(match: re.Match[str]) -> Number:
    sign, digits, *exponents = match.groups()
    exponent = int(next(text for text in exponents if text is not None))
    return Number(_signed(_decimal(digits) * Fraction(10) ** exponent, sign))


def _latex_fraction(match: re.Match[str]) -> Number | None:
    sign, sign_above, above, sign_below, below, rest = match.groups()
    return _quotient(above, below, (sign, sign_above, sign_below), rest)


def _fraction(match: re.Match[str]) -> Number | None:
    sign, above, below, rest = match.groups()
    return _quotient(above, below, (sign,), rest)


def _quotient(above: str, below: str, signs: tuple[str, ...], rest: str) -> Number | None:
    if int(below) == 0:
        return None
    return _with_unit(_signed(Fraction(int(above), int(below)), *signs), rest)


def _amount(match: re.Match[str]) -> Number | None:
    return _with_unit(_signed(_decimal(match[2]), match[1]), match[3])


def _with_unit(value: Fraction, rest: str) -> Number | None:
    """The amount that `value` and what follows it say; None if that is no unit."""
    if not rest:
        return Number(value)
    if rest.strip() in ("%", "percent", "percentage"):
        return Number(value, percent=True)
    words = rest.split()
    if not rest.startswith(" ") and rest.partition("^")[0] not in _CLOSE_UNITS | {""}:
        return None
    while words and words[0] in SCALES:
        value *= SCALES[words.pop(0)]
    if not words:
        return Number(value)
    unit = known_unit(words)
    if unit is None and not all(may_be_unit(word) for word in words):
        return None
    return Number(value, unit=unit)
