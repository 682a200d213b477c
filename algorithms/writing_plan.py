"""The plan of a long text: asked for, read out of what the model says, fitted to the words wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

MOST_PARTS = 100
MOST_WORDS = 20_000
"""Words of one part; more is not believed."""
LEAST_WORDS = 100
"""Words of a part that is not joined with its neighbour."""
LONGEST_PLAN = 50_000
LONGEST_POINT = 2_000
LONGEST_ENDING = 60
"""Characters at the end of a line in which its words are looked for."""

INDEPENDENT = "[independent]"

_PART = re.compile(r"^[\s>*#-]*(?:paragraph|part|section)\s*\d+\b[\s:.*)-]*", re.IGNORECASE)
_WORDS = re.compile(
    r"[\s,;:(*-]*(?:word count\W*)?(\d{1,3}(?:,\d{3})+|\d{1,7})\s*words?\b\W*$", re.I
)
_MARK = re.compile(re.escape(INDEPENDENT), re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<marks>[\s>*#_]*)(?:paragraph|part|section)\s*\d+(?:\s*(?:of|/)\s*\d+)?"
    r"(?:\s*[:)]\s*|\.(?!\d)\s*|\s+[-\u2013\u2014]+\s+|\s*(?=[*_]|$))",
    re.IGNORECASE,
)
_NOTHING_IN_BOLD = re.compile(r"(?:\*\*\s*\*\*|__\s*__)\s*:?\s*")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the plan.

    Attributes:
        point: what it is about.
        words: how long it should be.
        independent: whether it can be written without the parts before it.
    """

    point: str
    words: int
    independent: bool = False


def planning_prompt(instruction: str, words: int) -> str:
    """The request for a plan."""
    return (
        f"Plan a text for this instruction:\n\n{instruction}\n\n"
        f"The whole text should have about {words} words. Break it into parts of 200 to 1000 words "
        "each, fewer where the whole is shorter. Write one line for each part, in exactly this form, "
        "and nothing else:\n\n"
        "Part 1: what this part says, in one sentence - 300 words\n"
        "Part 2: what this part says, in one sentence - 250 words\n\n"
        f"Put {INDEPENDENT} before the number of words of a part that can be written without having "
        "read the parts before it."
    )


def writing_prompt(instruction: str, plan: Sequence[Part], number: int, before: str) -> str:
    """The request for part `number` (from 0); `before` is the text so far, empty where not needed.

    A plan of one part is no plan: small models are at a loss when they are shown one, and refuse where
    they are told to write nothing but the text.
    """
    if len(plan) == 1:
        return f"{instruction}\n\nWrite about {plan[0].words} words."
    listed = "\n".join(
        f"Part {n}: {part.point} - {part.words} words" for n, part in enumerate(plan, 1)
    )
    part = plan[number]
    so_far = f"What is already written:\n\n{before}\n\n" if before else ""
    return (
        f"You are writing a text for this instruction:\n\n{instruction}\n\nThe plan:\n\n{listed}\n\n"
        f"{so_far}Now write part {number + 1} of {len(plan)}: {part.point}\n"
        f"Write about {part.words} words. Write only this part: no heading, no comment, no summary of "
        "other parts, and no ending of the whole text before its last part."
    )


def again_prompt(request: str, attempt: str, written: int, wanted: int) -> str:
    """The request to write a part anew that missed its length."""
    change = "longer: add detail" if written < wanted else "shorter: leave out what matters least"
    return (
        f"{request}\n\nA first attempt has {written} words and should have about {wanted}:\n\n"
        f"{attempt}\n\nWrite this part again, {change}. Write only the part."
    )


def plain_prompt(instruction: str, part: Part) -> str:
    """The request for a part without plan and text so far, for a model that refused these."""
    return f"{instruction}\n\nWrite this part of it, in about {part.words} words: {part.point}"


def read_plan(text: str) -> list[Part]:
    """The parts in what a model said; empty where there are none.

    A line counts if it begins with a part's number and ends with a number of words from 1 to
    `MOST_WORDS`; other lines are left out, and so is what comes after `MOST_PARTS` parts. Small models
    forget the words of all parts; then each line with a part's number and a point is a part of one word,
    which `fitted` turns into equal shares.
    """
    told: list[Part] = []
    untold: list[Part] = []
    for line in text[:LONGEST_PLAN].splitlines():
        begin = _PART.match(line)
        if begin is None:
            continue
        rest = line[begin.end() :]
        head, tail = rest[:-LONGEST_ENDING], rest[-LONGEST_ENDING:]
        end = _WORDS.search(tail)
        words = 1 if end is None else int(end[1].replace(",", ""))
        point = rest if end is None else head + tail[: end.start()]
        independent = _MARK.search(point) is not None
        point = _MARK.sub("", point).strip(" \t-*,;:(")[:LONGEST_POINT]
        if point and 1 <= words <= MOST_WORDS:
            (untold if end is None else told).append(Part(point, words, independent))
        if len(told) == MOST_PARTS:
            break
    return told or untold[:MOST_PARTS]


def without_number(text: str) -> str:
    """A part without the number that the model has put before it, such as `Part 2:`; its title stays."""
    first, _, rest = text.strip().partition("\n")
    found = _NUMBER.match(first)
    if found is None:
        return text.strip()
    title = _NOTHING_IN_BOLD.sub("", found["marks"] + first[found.end() :])
    begin = title.strip() + "\n" if any(map(str.isalnum, title)) else ""
    return (begin + rest).strip()


def fitted(plan: Sequence[Part], words: int) -> list[Part]:
    """The plan with its words scaled so that they sum up to about `words`.

    Neighbours are joined until each part has `LEAST_WORDS`: models write a paragraph or more, however
    few words a part is given, and a text of many small parts becomes far too long.
    """
    parts, whole = list(plan), sum(part.words for part in plan)
    while len(parts) > 1:
        place = min(range(len(parts)), key=lambda n: parts[n].words)
        if parts[place].words * words >= LEAST_WORDS * whole:
            break
        beside = [n for n in (place - 1, place + 1) if 0 <= n < len(parts)]
        first, second = sorted((place, min(beside, key=lambda n: parts[n].words)))
        parts[first : second + 1] = [_joined(parts[first], parts[second])]
    return [replace(part, words=max(1, round(part.words * words / whole))) for part in parts]


def _joined(first: Part, second: Part) -> Part:
    point = f"{first.point}; then {second.point}"[:LONGEST_POINT]
    return Part(point, first.words + second.words, first.independent and second.independent)
