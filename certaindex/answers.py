"""Reads the answer out of a model's output, by a rule that depends on the task.

`EXTRACTORS` names the rules. All take time linear in at most `MAX_SCANNED_CHARS` characters,
whatever the text; none ever raises because of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from certaindex.canonical import MAX_ANSWER_CHARS, canonical

__all__ = ["EXTRACTORS", "FALLBACK", "Extracted", "canonical", "extract", "extractor"]

MAX_SCANNED_CHARS = 1 << 17
"""Characters at the end of the text that are looked at: an answer stands at the end, and 128 Ki
characters are about as many tokens as a long chain of thought has, at one character each."""
FALLBACK = "number"
"""`Extracted.source` of an answer that no marker announced: the last number of the text."""


class Extracted(NamedTuple):
    """An answer as written, without white space around it, and the name of the rule that found it.

    `source` is a name in `EXTRACTORS`, of a simple rule also where a composite one was asked for;
    `FALLBACK` says that it is a guess.
    """

    answer: str
    source: str


Extractor = Callable[[str], Extracted | None]

# Without a brace it is only the name of the command, in prose.
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"####[^\S\n]{0,9}([^\n]*)")
_ANSWER_IS = re.compile(r"\banswer\b\**[^\S\n]{0,9}(?:\bis\b|:|=)\**[^\S\n]{0,9}:?", re.IGNORECASE)
# Where the answer ends and the sentence goes on.
_SENTENCE_END = re.compile(
    r"\.(?=\s|$)|[.;]?\s*\n|,?\s(?:because|since|as|so|which|where|but)\b|[!?](?=\s|$)"
)
_MATHEMATICS = re.compile(r"\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![0-9A-Za-z_.,])-?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"(?:/[0-9]+(?![0-9.]))?(?:\s?\\?%)?|(?<![0-9A-Za-z_])-?\.[0-9]+"
)
# `(B)`, `B`, `B.`, `**B**`, `B) text`, `\text{B}`, `$B$` at the start of what was announced.
_LETTER = re.compile(
    r"[\s*:$\"'`_]{0,9}(?:\\[\[(]\s?)?(?:option|choice)?[\s*$]{0,9}"
    r"(?:\\(?:text|textbf|mathrm|mathbf|boxed)\{\s?)?"
    r"(?:[(\[]\s?([A-Ja-j])\s?[)\]]|([A-J])(?![A-Za-z0-9'’_^]))",  # noqa: RUF001
)
_ARTICLE = re.compile(r"\s+[a-z]")  # after "A" or "I": it was a word
_OPTION = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Ss]elect|[Pp]ick)s?(?:\s(?:is|option|choice|answer))?"
    r"[\s:*]{1,4}(?:\(([A-J])\)|([A-J])\b(?!'))"
)
_PARENTHESISED = re.compile(r"\(([A-J])\)")
_LETTER_LINE = re.compile(
    r"^[\s*_$>#-]{0,9}(?:\(([A-J])\)|([A-J]))[\s*_$]{0,9}(?:$|[.):].{0,200}$)"
)


def boxed(text: str) -> Extracted | None:
    r"""Content of the last `\boxed{}` or `\fbox{}`; None if it is empty, unclosed or too long."""
    last = None
    for match in _BOX.finditer(text[-MAX_SCANNED_CHARS:]):
        last = match
    return _found(_braced(last.string, last.end() - 1), "boxed") if last else None


def _braced(text: str, opening: int) -> str | None:
    """What stands between the brace at `opening` and the one that closes it."""
    depth = 0
    for match in _BRACES.finditer(text, opening, opening + MAX_ANSWER_CHARS + 2):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return text[opening + 1 : match.start()]
    return None


def _found(answer: str | None, source: str) -> Extracted | None:
    answer = answer.strip() if answer else ""
    return Extracted(answer, source) if 0 < len(answer) <= MAX_ANSWER_CHARS else None


def gsm8k(text: str) -> Extracted | None:
    """The rest of the line after the last `####`."""
    start = text.rfind("####", len(text) - min(len(text), MAX_SCANNED_CHARS))
    match = _HASHES.match(text, start, start + MAX_ANSWER_CHARS + 20) if start >= 0 else None
    return _found(match[1], "gsm8k") if match else None


def answer_is(text: str) -> Extracted | None:
    """What follows the last "answer is", "answer:" or "answer =", up to the end of the sentence."""
    announced = _announced(text[-MAX_SCANNED_CHARS:])
    if announced is None:
        return None
    if (mathematics := _MATHEMATICS.match(announced.lstrip(" *"))) is not None:
        content = next(group for group in mathematics.groups() if group)
        return boxed(content) or _found(content, "answer-is")
    end = _SENTENCE_END.search(announced)
    answer = (announced[: end.start()] if end else announced).strip("* \t")
    return boxed(answer) or _found(answer, "answer-is")


def _announced(text: str) -> str | None:
    """The text after the last announcement of an answer, as far as it can matter."""
    last = None
    for match in _ANSWER_IS.finditer(text):
        last = match
    if last is None:
        return None
    return text[last.end() : last.end() + MAX_ANSWER_CHARS + 20].lstrip()


def choice(text: str) -> Extracted | None:
    """The letter A to J of a multiple-choice answer, in upper case.

    In this order: the letter in the last box, after the last "answer is", after the last "option",
    "choose" and the like, the last line if it is one ("B", "B. text"), the last "(B)".
    """
    text = text[-MAX_SCANNED_CHARS:]
    if (box := boxed(text)) is not None and (letter := _letter(box.answer)):
        return Extracted(letter, "boxed")
    announced = _announced(text)
    if announced is not None and (letter := _letter(announced)):
        return Extracted(letter, "answer-is")
    line = text.rstrip().rpartition("\n")[2][:MAX_ANSWER_CHARS]
    for pattern, where in ((_OPTION, text), (_LETTER_LINE, line), (_PARENTHESISED, text)):
        letters = [match[match.lastindex or 1] for match in pattern.finditer(where)]
        if letters:
            return Extracted(letters[-1], "choice")
    return None


def _letter(announced: str) -> str | None:
    match = _LETTER.match(announced)
    if match is None:
        return None
    if match[2] in ("A", "I") and _ARTICLE.match(announced, match.end()):
        rest = announced[match.end() :].split(maxsplit=1)[0]
        if rest not in ("because", "since", "as", "and", "which", "with", "for"):
            return None
    return (match[1] or match[2]).upper()


def number(text: str) -> Extracted | None:
    """The last number of the text, with its sign, fraction bar and percent sign."""
    last = None
    for match in _NUMBER.finditer(text[-MAX_SCANNED_CHARS:]):
        last = match
    return _found(last[0], FALLBACK) if last else None


def mathematics(text: str) -> Extracted | None:
    """By box, else "answer is", else `####`, else the last number (a guess: `FALLBACK`)."""
    for read in (boxed, answer_is, gsm8k, number):
        if (extracted := read(text)) is not None:
            return extracted
    return None


EXTRACTORS: dict[str, Extractor] = {
    "boxed": boxed,
    "gsm8k": gsm8k,
    "answer-is": answer_is,
    "choice": choice,
    "number": number,
    "math": mathematics,
}
"""The rules by name."""


def extractor(name: str) -> Extractor:
    """The rule of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    try:
        return EXTRACTORS[name]
    except KeyError:
        names = ", ".join(EXTRACTORS)
        raise ValueError(f"no way to read answers is called {name!r}; there are {names}") from None


def extract(text: str, name: str) -> str | None:
    """The answer in `text` by the rule of that name, or None if there is none.

    Raises:
        ValueError: if there is no such rule.
    """
    extracted = extractor(name)(text)
    return extracted.answer if extracted else None
