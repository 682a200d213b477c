"""The rules by which two answers are the same, up to a question for computer algebra.

`decide` answers what can be answered cheaply and exactly and hands the rest, the leaves, to a
function. The process that asks runs it with no such function (`undecided`) and so learns in
microseconds whether a worker is needed at all; the worker runs it with math-verify.

The rules, on canonical strings (`certaindex.canonical`):

- Equal strings are the same answer.
- Plain numbers (`certaindex.numerals`) compare exactly: `1/3` is not `0.3333`. `50%` is the same as
  `0.5` and as `50`; `5 cm` the same as `5` but not as `5 km`; `$5` the same as `5`.
- Words of three letters or more compare without regard to case; a single letter with regard to it.
- `(B)` is the letter `B`. `5m` is five times m and not an amount of anything.
- `x=5` is the same as `5`, and not as `y=5`.
- `(a,b)`, `[a,b]`, `[a,b)` and `(a,b]` compare element by element in order, and brackets count
  (they may be intervals). `\\{a,b\\}` and a bare `a,b` compare in any order. A bare `a,b` is also
  the same as `(a,b)`. A set in braces is never a tuple.
- Anything else is a leaf.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from certaindex.numerals import Number, parse_number

MAX_ELEMENTS = 32
"""Most elements of a list that are compared one by one: matching in any order is quadratic."""
MAX_DEPTH = 3
"""Most levels of lists in lists; what is deeper is a leaf."""

Leaf = Callable[[str, str], bool | None]
"""Whether two canonical strings are the same answer; None for not known."""

_LETTER = re.compile(r"\(?([A-J])\)?")
# A number times a variable. Not e, which is a number; math-verify would take m or g for a unit.
_TERM = re.compile(r"([+-]?)([0-9]{0,100}(?:\.[0-9]{1,100})?)([A-Za-df-z])(?:\^([0-9]))?")
_WORDS = re.compile(r"[A-Za-z]{3,}(?:[ '-]?[A-Za-z]+)*")
_ASSIGNMENT = re.compile(r"([A-Za-z](?:_(?:[0-9A-Za-z]|\{[0-9A-Za-z]{1,8}\}))?)=(?=[^=])")
_SPLIT = re.compile(r"\\\\|\\[{}]|[()\[\]{},]")
_BRACKETS = {"(": ")]", "[": ")]", r"\{": (r"\}",)}


class _Collection(NamedTuple):
    """A list as written: its brackets (`""` for none) and its elements."""

    brackets: str
    elements: list[str]

    @property
    def ordered(self) -> bool:
        return self.brackets not in ("", r"\{\}")


def undecided(_a: str, _b: str) -> None:
    """The leaf function of a process that asks no computer algebra."""


def decide(a: str, b: str, leaf: Leaf, depth: int = MAX_DEPTH) -> bool | None:
    """Whether two canonical answers are the same; None where it hangs on an undecided leaf."""
    if a == b:
        return True
    a, b = _without_assignment(a, b)
    if a == b:
        return True
    verdict = _decide_plain(a, b)
    if verdict is not None:
        return verdict
    first, second = _collection(a), _collection(b)
    if depth and first and second:
        return _decide_collections(first, second, leaf, depth - 1)
    if (first and parse_number(b)) or (second and parse_number(a)):
        return False
    return leaf(a, b)


def _without_assignment(a: str, b: str) -> tuple[str, str]:
    """Both without `x=`, where one side names a variable or both name the same."""
    first, second = _ASSIGNMENT.match(a), _ASSIGNMENT.match(b)
    # Further equals signs or commas make it a system of equations: a leaf, or a collection.
    if first and (_plain_rest(a, first) is None or (not second and "=" in b)):
        return a, b
    if second and (_plain_rest(b, second) is None or (not first and "=" in a)):
        return a, b
    if first and second and first[1] != second[1]:
        return a, b
    return (a[first.end() :] if first else a), (b[second.end() :] if second else b)


def _plain_rest(text: str, match: re.Match[str]) -> str | None:
    rest = text[match.end() :]
    return None if "=" in rest else rest


def _decide_plain(a: str, b: str) -> bool | None:
    """Verdict on two numbers, terms or words; None if either is none of these."""
    first, second = parse_number(a), parse_number(b)
    if first and second:
        return first.same(second)
    one, other = _plain(a, first), _plain(b, second)
    return None if one is None or other is None else one == other


def _plain(text: str, number: Number | None) -> tuple[object, ...] | None:
    """What kind of plain answer it is and what it says; None for anything else."""
    if number:
        return ("number",)
    if letter := _LETTER.fullmatch(text):
        text = letter[1]
    if term := _TERM.fullmatch(text):
        sign, coefficient, name, power = term.groups()
        return ("term", sign == "-", Fraction(coefficient or "1"), name, power)
    return ("words", text.lower()) if _WORDS.fullmatch(text) else None


def _collection(text: str) -> _Collection | None:
    """The list of two or more elements that an answer is, or None."""
    brackets, inner = "", text
    for opening, closings in _BRACKETS.items():
        for closing in closings:
            if text.startswith(opening) and text.endswith(closing):
                brackets, inner = opening + closing, text[len(opening) : -len(closing)]
    elements = _elements(inner)
    if elements is None and brackets:
        # "(1,2),(3,4)" starts and ends with brackets that are not a pair.
        brackets, elements = "", _elements(text)
    if elements is None or not 2 <= len(elements) <= MAX_ELEMENTS or not all(elements):
        return None
    return _Collection(brackets, elements)


def _elements(text: str) -> list[str] | None:
    """The text cut at its commas outside of brackets; None if its brackets do not pair."""
    depth, start = 0, 0
    elements = []
    for match in _SPLIT.finditer(text):
        mark = match[0]
        if mark == ",":
            if depth == 0:
                elements.append(text[start : match.start()].strip())
                start = match.end()
        elif mark[-1] in "([{":
            depth += 1
        elif mark[-1] in ")]}":
            depth -= 1
            if depth < 0:
                return None
    elements.append(text[start:].strip())
    return elements if depth == 0 else None


def _decide_collections(a: _Collection, b: _Collection, leaf: Leaf, depth: int) -> bool | None:
    if len(a.elements) != len(b.elements):
        return False
    if a.ordered and b.ordered:
        if a.brackets != b.brackets:
            return False
        return _decide_in_order(a.elements, b.elements, leaf, depth)
    if a.ordered or b.ordered:
        ordered, other = (a, b) if a.ordered else (b, a)
        if other.brackets or ordered.brackets != "()":
            return False
        return _decide_in_order(a.elements, b.elements, leaf, depth)
    return _decide_any_order(a.elements, b.elements, leaf, depth)


def _decide_in_order(a: list[str], b: list[str], leaf: Leaf, depth: int) -> bool | None:
    verdicts = [decide(one, other, undecided, depth) for one, other in zip(a, b, strict=True)]
    if False in verdicts:  # cheap verdicts first, so that a leaf is asked only if all hangs on it
        return False
    verdict: bool | None = True
    for index, known in enumerate(verdicts):
        if known is None:
            asked = decide(a[index], b[index], leaf, depth)
            if asked is False:
                return False
            verdict = verdict if asked else None
    return verdict


def _decide_any_order(a: list[str], b: list[str], leaf: Leaf, depth: int) -> bool | None:
    """Match each element with the first that is the same; None if a match may have been missed."""
    left = list(b)
    open_question = False
    rest = []
    for element in a:  # cheap verdicts first here too
        for index, other in enumerate(left):
            if decide(element, other, undecided, depth):
                del left[index]
                break
        else:
            rest.append(element)
    for element in rest:
        verdicts = []
        for index, other in enumerate(left):
            verdict = decide(element, other, leaf, depth)
            verdicts.append(verdict)
            if verdict:
                del left[index]
                break
        else:
            if None not in verdicts:
                return False
            open_question = True
    return None if open_question else True
