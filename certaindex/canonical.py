"""Light normalisation of an answer: another way to write the same thing gets the same string.

Cheap (regular expressions without backtracking on at most `MAX_ANSWER_CHARS` characters) and
conservative: only spellings that mean the same are merged, so that equal canonical strings are
equal answers. What needs mathematics is left to `certaindex.equivalence`.
"""

from __future__ import annotations

import re

MAX_ANSWER_CHARS = 1_000
"""Longest answer that is read or compared. The longest right answers of MATH-500 have about 160
characters; what is longer than this is a derivation or an attack, and compares as text only."""

_SYMBOLS = str.maketrans(
    {
        "\0": None,
        "−": "-",  # noqa: RUF001
        "°": r"^\circ ",
        "×": r"\times ",  # noqa: RUF001
        "÷": r"\div ",
        "·": r"\cdot ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
    }
)
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox)\s*\{([^{}]*)\}"
)
_DELIMITERS = (("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
_NUMBER = re.compile(r"([+-]?)([1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?(%?)")

# Each is a pattern and what takes its place, in this order. `\\` (a new row) is matched by the
# spacing pattern to step over it, so that `\\,` is not read as a new row's half and a thin space.
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\displaystyle(?![A-Za-z])", " "),
        (r"\\?\$", ""),
        (r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lr]?(?![A-Za-z])", ""),
        (r"\{,\}", ","),
        (r"(\\\\)|\\!", r"\1"),
        (r"(?<=[0-9])\\,(?=[0-9]{3}(?![0-9]))", ""),
        (r"(\\\\)|\\[,;: ]|\\q?quad(?![A-Za-z])|~", r"\1 "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\leq(?![A-Za-z])", r"\\le"),
        (r"\\geq(?![A-Za-z])", r"\\ge"),
        (r"\\%", "%"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"\^\{([0-9A-Za-z])\}(?![0-9A-Za-z])", r"^\1"),
        # "1, 234" is a list and must not become "1,234", a number.
        (r"(?<=[0-9])(?:\s+,\s*|,\s+)(?=[0-9]{3}(?![0-9]))", ",\0"),
        (r"\s+", " "),
        (r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])|(?<=\\le|\\ge|\\pi) (?=[0-9])", ""),
        ("\0", " "),
    )
)


def canonical(answer: str) -> str:
    """The answer in one spelling: for display, and as the key of an exact match.

    Takes away mathematics delimiters and dollar signs, `\\left`, `\\right`, spacing commands and
    spaces that separate nothing, `\\text{}` and its kin, a final full stop, thousands separators,
    leading zeros and the zeros at the end of a decimal; writes `\\dfrac` as `\\frac`, `\\leq` as
    `\\le`, and common Unicode signs as LaTeX. Case is kept. Idempotent. An answer longer than
    `MAX_ANSWER_CHARS` only loses the white space around it.

    A number such as `1,234` is read as one thousand and so on, `1, 234` as a list of two.
    """
    text = answer.strip()
    if len(text) > MAX_ANSWER_CHARS:
        return text
    # One step may uncover work for another. Each pass but the last undoes a spelling, and none
    # introduces one, so this ends; the bound is for the peace of mind of the reader.
    for _ in range(MAX_ANSWER_CHARS):
        before, text = text, _one_pass(text)
        if text == before:
            break
    return text


def _one_pass(text: str) -> str:
    text = text.translate(_SYMBOLS)
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if text == opening + inner + closing:
            text = inner
    text = _TEXT.sub(_unwrap, text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    # Not the last point of an ellipsis, which says that the number goes on.
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    return _plain_number(text)


def _unwrap(match: re.Match[str]) -> str:
    """The words inside `\\text{}`, kept apart from letters and digits on either side."""
    words = match[1]
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    if before.isalnum() and words[:1].isalnum():
        words = " " + words
    if after.isalnum() and words[-1:].isalnum():
        words += " "
    return words


def _plain_number(text: str) -> str:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    sign, whole, decimals, percent = match.groups()
    if not whole and not decimals:
        return text
    whole = whole.replace(",", "").lstrip("0") or "0"
    decimals = (decimals or "").rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return ("-" if sign == "-" and value != "0" else "") + value + percent
