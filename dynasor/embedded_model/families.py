"""Six families of word problems, each with a worked solution made of small arithmetic steps.

A family turns a random generator, a number of steps and a size of numbers into a `Draft`.
Every line of a solution that contains "=" is true, read as arithmetic; the running result is
written out in each line, so that a small model only ever needs the line before and the question.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

NAMES = {
    "Mia": "She",
    "Emma": "She",
    "Lena": "She",
    "Sara": "She",
    "Ben": "He",
    "Tom": "He",
    "Noah": "He",
    "Omar": "He",
}
THINGS = ("shells", "cards", "stamps", "coins", "apples", "beads", "books", "stones")
GOODS = ("pens", "cups", "hats", "lamps", "bags", "toys", "mugs", "plates", "maps", "balls")
TRIPS = ("walks", "rides", "reads", "swims", "cooks", "works", "rests", "paints")


@dataclass(frozen=True)
class Draft:
    """A problem before it has a level: `content` is what it asks, without names and wording."""

    question: str
    lines: tuple[str, ...]
    answer: int
    content: str


Family = Callable[[random.Random, int, int], Draft]


def times(factor: int, value: int) -> str:
    """The line for a product of a one-digit factor; larger values are multiplied digit by digit.

    >>> times(6, 47)
    '6 * 47 = 240 + 42 = 282'
    """
    digits = str(value)
    parts = [
        factor * int(digit) * 10 ** (len(digits) - 1 - place)
        for place, digit in enumerate(digits)
        if digit != "0"
    ]
    middle = " + ".join(str(part) for part in parts) + " = " if len(parts) > 1 else ""
    return f"{factor} * {value} = {middle}{factor * value}"


def story(rng: random.Random, steps: int, size: int) -> Draft:
    """A person's things grow and shrink; how many are there at the end?"""
    name, thing = rng.choice(list(NAMES)), rng.choice(THINGS)
    pronoun = NAMES[name]
    value = start = rng.randint(2, size)
    text, lines, content = [f"{name} has {start} {thing}."], [], [str(start)]
    for _ in range(steps):
        sentence, new_lines, value, code = _story_step(rng, value, size, pronoun, thing)
        text.append(sentence)
        lines += new_lines
        content.append(code)
    text.append(f"How many {thing} does {name} have now?")
    return Draft(" ".join(text), tuple(lines), value, " ".join(content))


def _story_step(
    rng: random.Random, value: int, size: int, who: str, thing: str
) -> tuple[str, list[str], int, str]:
    kind = rng.random()
    amount = rng.randint(1, size)
    if kind < 0.08 and value <= size:
        return "The number doubles.", [f"{value} * 2 = {value * 2}"], value * 2, "*2"
    if kind < 0.16 and value % 2 == 0 and value > 2:
        return f"{who} loses half of them.", [f"{value} / 2 = {value // 2}"], value // 2, "/2"
    if kind < 0.28:
        boxes, each = rng.randint(2, 5), max(2, amount // 4)
        more = value + boxes * each
        lines = [times(boxes, each), f"{value} + {boxes * each} = {more}"]
        return f"{who} buys {boxes} boxes of {each} {thing}.", lines, more, f"+{boxes}*{each}"
    if value > 2 * size or (kind < 0.62 and value > amount):
        amount = min(amount, value - 1)
        less = value - amount
        verb = rng.choice(("gives away", "loses", "sells"))
        return f"{who} {verb} {amount}.", [f"{value} - {amount} = {less}"], less, f"-{amount}"
    verb, more = rng.choice(("finds", "buys", "gets")), value + amount
    return f"{who} {verb} {amount} more.", [f"{value} + {amount} = {more}"], more, f"+{amount}"


def order(rng: random.Random, steps: int, size: int) -> Draft:
    """Several goods, a number of each at a price; what does it all cost?"""
    name = rng.choice(list(NAMES))
    goods = rng.sample(GOODS, min(steps, len(GOODS)))
    text, lines, content, total = [], [], [], 0
    for count_so_far, good in enumerate(goods):
        count, price = rng.randint(2, 9), rng.randint(2, max(3, size // 2))
        text.append(f"{count} {good} at {price} dollars each")
        lines.append(times(count, price))
        if count_so_far:
            lines.append(f"{total} + {count * price} = {total + count * price}")
        total += count * price
        content.append(f"{count}*{price}")
    listed = text[0] if len(text) == 1 else ", ".join(text[:-1]) + " and " + text[-1]
    question = f"{name} buys {listed}."
    if rng.random() < 0.3 and total > 3:
        less = rng.randint(1, min(size, total - 1))
        question += f" The shop takes off {less} dollars."
        lines.append(f"{total} - {less} = {total - less}")
        total -= less
        content.append(f"-{less}")
    return Draft(f"{question} How much does {name} pay?", tuple(lines), total, "+".join(content))


def clock(rng: random.Random, steps: int, size: int) -> Draft:
    """A day's activities one after the other; how many minutes past midnight do they end?"""
    name = rng.choice(list(NAMES))
    longest = max(5, min(size, 900 // steps))
    hour, minute = rng.randint(1, 8), rng.randint(0, 11) * 5 if size < 100 else rng.randint(0, 59)
    now = hour * 60 + minute
    text = [f"{name} gets up at {hour}:{minute:02d}."]
    lines = [f"{hour} * 60 + {minute} = {hour * 60} + {minute} = {now}"]
    content = [str(now)]
    for place in range(steps):
        length = rng.randint(2, longest)
        length += length % 60 in (0, 1)  # So that no text needs "1 minutes" or "0 minutes".
        length += length % 60 == 1
        who = NAMES[name] if place == 0 else f"Then {NAMES[name].lower()}"
        hours, rest = divmod(length, 60)
        if hours:
            unit = "hour" if hours == 1 else "hours"
            lasting = f"{hours} {unit} and {rest} minutes"
            lines.append(f"{hours} * 60 + {rest} = {length}")
        else:
            lasting = f"{rest} minutes"
        text.append(f"{who} {rng.choice(TRIPS)} for {lasting}.")
        lines.append(f"{now} + {length} = {now + length}")
        now += length
        content.append(str(length))
    text.append("How many minutes past midnight is it now?")
    return Draft(" ".join(text), tuple(lines), now, " ".join(content))


def wheel(rng: random.Random, steps: int, size: int) -> Draft:
    """A pointer goes round a wheel with numbered marks; where does it stop?"""
    marks = rng.randint(5, max(6, size))
    value = start = rng.randrange(marks)
    text = [f"A wheel has {marks} marks, from 0 to {marks - 1}. The pointer is at {start}."]
    lines, content = [], [f"{start} mod {marks}"]
    for place in range(steps):
        move = rng.randint(1, marks - 1)
        back = rng.random() < 0.4
        sign = "-" if back else "+"
        verb = "It moves" if place == 0 else "Then it moves"
        unit = "mark" if move == 1 else "marks"
        text.append(f"{verb} {move} {unit} {'back' if back else 'on'}.")
        if back and move > value:
            lines.append(f"{value} + {marks} = {value + marks}")
            value += marks
        after = value - move if back else value + move
        lines.append(f"{value} {sign} {move} = {after}")
        if after >= marks:
            lines.append(f"{after} - {marks} = {after - marks}")
            after -= marks
        value = after
        content.append(f"{sign}{move}")
    text.append("At which mark does it stop?")
    return Draft(" ".join(text), tuple(lines), value, " ".join(content))


def unwind(rng: random.Random, steps: int, size: int) -> Draft:
    """A secret number went through some operations; which one gives the result that is told?"""
    name = rng.choice(list(NAMES))
    pronoun = NAMES[name].lower()
    secret = value = rng.randint(2, size)
    text, lines, content = [], [], []
    for _ in range(steps):
        factor, amount = rng.randint(2, 5), rng.randint(1, size)
        kind = rng.random()
        if kind < 0.35 and value * factor <= 3 * size:
            value *= factor
            text.append(f"multiplies it by {factor}")
            lines.append(f"{value} / {factor} = {value // factor}")
            content.append(f"*{factor}")
        elif value > amount and kind < 0.7:
            text.append(f"takes away {amount}")
            lines.append(f"{value - amount} + {amount} = {value}")
            value -= amount
            content.append(f"-{amount}")
        else:
            text.append(f"adds {amount}")
            lines.append(f"{value + amount} - {amount} = {value}")
            value += amount
            content.append(f"+{amount}")
    told = ", then ".join(f"{pronoun} {what}" for what in text)
    question = (
        f"{name} thinks of a number. {told[0].upper()}{told[1:]}. "
        f"The result is {value}. What was the number?"
    )
    return Draft(question, tuple(reversed(lines)), secret, f"{' '.join(content)} {value}")


@lru_cache(maxsize=1)
def _chain_sum_module() -> Any:
    # Imported late: reasoning_gym is needed to make problems, not to use the model.
    from reasoning_gym.arithmetic import chain_sum as module

    return module


def chain_sum(rng: random.Random, steps: int, size: int) -> Draft:
    """A sum of many terms from reasoning_gym, worked out from left to right."""
    module = _chain_sum_module()
    digits = 1 if size < 30 else 2 if size < 200 else 3
    while True:
        terms = steps + 1
        config = module.ChainSumConfig(
            min_terms=terms, max_terms=terms, min_digits=digits, max_digits=digits,
            seed=rng.randrange(2**31), size=1,
        )  # fmt: skip
        item = module.ChainSumDataset(config)[0]
        expression = item["metadata"]["expression"]
        lines, value = _running_sum(expression)
        if lines:  # Chains that go below zero are left out: they need another arithmetic.
            return Draft(item["question"], tuple(lines), value, expression)


def _running_sum(expression: str) -> tuple[list[str], int]:
    """The running results of "a + b - c", or no lines where one of them is negative."""
    tokens = expression.split()
    value, lines = int(tokens[0]), []
    for sign, term in zip(tokens[1::2], tokens[2::2], strict=True):
        after = value + int(term) if sign == "+" else value - int(term)
        if after < 0:
            return [], 0
        lines.append(f"{value} {sign} {term} = {after}")
        value = after
    return lines, value


FAMILIES: dict[str, Family] = {
    "story": story,
    "order": order,
    "clock": clock,
    "wheel": wheel,
    "unwind": unwind,
    "chain_sum": chain_sum,
}
