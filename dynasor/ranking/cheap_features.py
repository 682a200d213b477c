"""What can be seen of a prompt at a glance: how long it is, what it asks for, how much of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.prompt_text import split_question

HEAD, TAIL = 1_500, 500
"""Of a longer question only so many first and last characters are looked at, besides its length."""

_SIGNS = "?!.,:;{}[]()<>=\"'`$\\|#*-•/_&%+@"
_KINDS: dict[str, str] = {
    "code": "def import return class function const var let select public void include null true",
    "make_code": "code script function program python javascript typescript sql html css java c++ "
    "react implement regex bash api excel formula",
    "write": "write draft compose create generate develop produce prepare make design build",
    "long_form": "essay article story blog script chapter report proposal plan outline curriculum "
    "course guide tutorial book novel speech letter dialogue scene poem song lyrics",
    "short_form": "title headline slogan name tagline tweet caption haiku acronym joke sentence word "
    "phrase synonym abbreviation emoji subject",
    "brief": "brief briefly short shorter concise quick quickly simple simply tldr summary summarize "
    "summarise only just single one",
    "detail": "detail detailed details comprehensive depth thorough long longer extensive complete "
    "full elaborate expand step all each every",
    "list": "list example examples ideas ways steps tips reasons questions options suggestions topics "
    "benefits features items bullet points",
    "table": "table column columns row rows csv spreadsheet",
    "language": "translate translation spanish french german chinese english japanese portuguese",
    "rewrite": "rewrite rephrase paraphrase edit proofread improve fix correct grammar change",
    "explain": "explain describe why how difference compare tell about mean means",
    "what": "what who when where which whose",
    "yes_no": "is are was were do does did can could will would should has have",
    "role": "act pretend role expert assistant",
    "wait": "understand understood acknowledge ready reply respond answer ask wait",
    "go_on": "continue go keep more next proceed again",
    "greeting": "thanks thank hello hi hey good great perfect ok okay yes no please",
    "mathematics": "theorem equation calculate solve prove integral probability matrix",
}
_KIND_OF: dict[str, list[int]] = {}
for _place, _names in enumerate(_KINDS.values()):
    for _name in _names.split():
        _KIND_OF.setdefault(_name, []).append(_place)

_WORD = re.compile(r"\w+")
_BULLET = re.compile(r"\n\s*(?:[-*•]|\d+[.)])\s")
_NUMBER = re.compile(r"\d[\d,]*")
_UNITS: dict[str, tuple[str, ...]] = {
    "words": ("word",),
    "characters": ("char",),
    "large_parts": ("page", "paragraph", "chapter", "section", "slide", "minute", "post", "email"),
    "small_parts": ("sentence", "line", "bullet"),
    "items": ("idea", "tip", "example", "question", "way", "reason", "step", "thing", "fact", "name",
              "title", "topic", "item", "keyword", "option", "suggestion", "point", "headline"),
}  # fmt: skip
_UNIT_OF = {name: place for place, names in enumerate(_UNITS.values()) for name in names}
_UNIT_WORDS = 3
"""A unit is one of so many words after the number: `10 good blog ideas`."""

FEATURES: tuple[str, ...] = (
    "characters", "words", "lines", "word_length", "distinct_words", "last_line", "first_line",
    "digits_share", "capitals_share", "letters_share", "space_share", "other_alphabet_share",
    "cjk_share", "end_sign", "starts_lower", "bullets", "blank_lines", "code_blocks", "links",
    *(f"sign {sign}" for sign in _SIGNS), *_KINDS, *(f"first {kind}" for kind in _KINDS),
    *(f"asked_{unit}" for unit in _UNITS), "largest_number", "numbers",
    "turns_before", "last_answer", "mean_answer", "context",
)  # fmt: skip


def prompt_features(text: str) -> NDArray[np.float64]:
    """The features of a prompt, in the order of `FEATURES`; (len(FEATURES),) float64.

    Lengths and counts are ln(1 + n); what is asked for but not said is -1.
    """
    context, question = split_question(text)
    seen = question
    if len(question) > HEAD + TAIL:
        seen = f"{question[:HEAD]}\n{question[-TAIL:]}"
    lower = seen.lower()
    words = _WORD.findall(lower)
    return np.array(
        [
            *_shape(question, seen, words),
            *map(math.log1p, map(seen.count, _SIGNS)),
            *_kinds(words),
            *_asked(lower),
            *_before(context),
        ],
        np.float64,
    )


def _shape(question: str, seen: str, words: Sequence[str]) -> list[float]:
    size = max(1, len(seen))
    codes = np.frombuffer(seen.encode("utf-32-le", "replace"), np.uint32)
    kinds = np.bincount(_CLASS_OF[np.minimum(codes, len(_CLASS_OF) - 1)], minlength=7) / size
    stripped = seen.strip()
    last_break = stripped.rfind("\n")
    first_break = stripped.find("\n")
    return [
        math.log1p(len(question)),
        math.log1p(len(words) * max(1, len(question)) / size),
        math.log1p(question.count("\n")),
        (len(seen) - kinds[3] * size) / max(1, len(words)),
        len(set(words)) / max(1, len(words)),
        math.log1p(len(stripped) - last_break - 1),
        math.log1p(first_break if first_break >= 0 else len(stripped)),
        kinds[0],
        kinds[1],
        kinds[2],
        kinds[3],
        kinds[4] + kinds[5],
        kinds[5],
        float(".?!:".find(stripped[-1:])) if stripped else -2.0,
        float(stripped[:1].islower()),
        math.log1p(len(_BULLET.findall(seen))),
        math.log1p(seen.count("\n\n")),
        math.log1p(seen.count("```")),
        math.log1p(seen.count("http")),
    ]


def _class_of_codes() -> NDArray[np.uint8]:
    """Digit 0, capital 1, other letter 2, space 3, beyond Latin 4, Chinese or Japanese 5, other 6."""
    table = np.full(0xD7FF, 5, np.uint8)
    for code in range(0x2E80):
        sign = chr(code)
        table[code] = (
            0 if sign.isdigit() and code < 128
            else 4 if code > 0x24F
            else 1 if sign.isupper()
            else 2 if sign.isalpha()
            else 3 if sign.isspace()
            else 6
        )  # fmt: skip
    table[-1] = 4
    return table


_CLASS_OF = _class_of_codes()


def _kinds(words: Sequence[str]) -> list[float]:
    """How many words of each kind, and which kind the first of three words is of."""
    counts = [0] * len(_KINDS)
    first = [0.0] * len(_KINDS)
    for word, count in Counter(words).items():
        for kind in _KIND_OF.get(word, ()):
            counts[kind] += count
    for place, word in enumerate(words[:3]):
        for kind in _KIND_OF.get(word, ()):
            first[kind] = max(first[kind], 3.0 - place)
    return [*map(math.log1p, counts), *first]


def _asked(lower: str) -> list[float]:
    """How many words, pages, ideas and so on are asked for; the largest number; how many there are."""
    asked = [-1.0] * len(_UNITS)
    largest, count = -1.0, 0
    for match in _NUMBER.finditer(lower):
        value = math.log1p(int(match[0].replace(",", "")[:7]))
        largest, count = max(largest, value), count + 1
        after = lower[match.end() : match.end() + 40]
        for word in _WORD.findall(after)[:_UNIT_WORDS]:
            unit = _UNIT_OF.get(word.removesuffix("s"), _UNIT_OF.get(word))
            if unit is not None:
                asked[unit] = max(asked[unit], value)
                break
    return [*asked, largest, math.log1p(count)]


def _before(context: str) -> list[float]:
    """Answers that came before, and how long they were; of what is kept of the context."""
    if not context:
        return [0.0, -1.0, -1.0, 0.0]
    answers = [len(part.partition("\n<|")[0]) for part in context.split("<|assistant|>\n")[1:]]
    if context[:2] != "<|" and not answers:  # the beginning of the answer is cut off
        answers = [len(context)]
    return [
        math.log1p(len(answers)),
        math.log1p(answers[-1]) if answers else -1.0,
        math.log1p(sum(answers) / len(answers)) if answers else -1.0,
        math.log1p(len(context)),
    ]
