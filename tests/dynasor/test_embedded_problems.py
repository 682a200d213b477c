"""The problems of the embedded model: right, reproducible, and never both trained on and tested."""

import json
import random
import re
from collections import Counter
from fractions import Fraction
from statistics import fmean

import pytest

pytest.importorskip("reasoning_gym")

from dynasor.embedded_model import test_suite as suite_path
from dynasor.embedded_model.families import FAMILIES, times
from dynasor.embedded_model.problems import (
    LEVELS,
    MOST_STEPS,
    PROBE_SUFFIX,
    draw,
    draw_training,
    problems,
    solution_text,
    split_of,
)


def value_of(expression: str) -> Fraction:
    """A sum of products of plain integers, read independently of the code under test."""
    tokens = re.findall(r"\d+|[-+*/]", expression)
    assert "".join(tokens) == expression.replace(" ", ""), expression
    total, sign = Fraction(0), 1
    product = Fraction(int(tokens[0]))
    for operator, number in zip(tokens[1::2], tokens[2::2], strict=True):
        if operator == "*":
            product *= int(number)
        elif operator == "/":
            product /= int(number)
        else:
            total += sign * product
            product, sign = Fraction(int(number)), 1 if operator == "+" else -1
    return total + sign * product


def read_suite() -> list[dict[str, object]]:
    return [json.loads(line) for line in suite_path().read_text().splitlines()]


def test_the_checker_itself() -> None:
    assert value_of("2 + 3 * 4 - 10 / 5") == 12


@pytest.mark.parametrize("family", FAMILIES)
def test_every_line_is_true_and_the_last_result_is_the_answer(family: str) -> None:
    rng = random.Random(7)
    for _ in range(150):
        draft = FAMILIES[family](rng, rng.randint(1, MOST_STEPS[family]), rng.randint(8, 900))
        assert draft.lines
        for line in draft.lines:
            values = [value_of(part) for part in line.split(" = ")]
            assert len(values) >= 2, line
            assert len(set(values)) == 1, line
        assert int(draft.lines[-1].rsplit(" = ", 1)[1]) == draft.answer
        boxes = re.findall(r"\\boxed\{(.*?)\}", solution_text(draft))
        assert boxes == [str(draft.answer)]


@pytest.mark.parametrize("family", FAMILIES)
def test_results_are_never_negative(family: str) -> None:
    rng = random.Random(3)
    for _ in range(100):
        draft = FAMILIES[family](rng, MOST_STEPS[family], 200)
        assert not re.search(r"(= |^)-", "\n".join(draft.lines)), draft.lines


@pytest.mark.parametrize("factor", range(2, 10))
def test_products_are_worked_out_digit_by_digit(factor: int) -> None:
    for value in (3, 10, 47, 305, 999):
        assert len({value_of(part) for part in times(factor, value).split(" = ")}) == 1


def test_the_same_seed_gives_the_same_problems() -> None:
    assert list(problems(5, "train", 60)) == list(problems(5, "train", 60))
    assert list(problems(5, "train", 60)) != list(problems(6, "train", 60))


def test_training_draws_belong_to_no_other_split() -> None:
    rng = random.Random(1)
    held_out = {p.question for p in problems(0, "test", 100)}
    for _ in range(300):
        draft = draw_training(rng)
        assert draft.question not in held_out


def test_draw_keeps_to_the_split() -> None:
    rng = random.Random(2)
    for family, levels in LEVELS.items():
        for steps, size in levels:
            assert split_of(family, draw(rng, "test", family, steps, size).content) == "test"


def test_splits_are_disjoint_and_of_the_promised_share() -> None:
    found = Counter(split_of("story", f"1 +{number}") for number in range(20_000))
    assert found["test"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert found["validation"] / 20_000 == pytest.approx(0.05, abs=0.01)


def test_levels_grow_in_length() -> None:
    drawn = list(problems(3, "train", 600))
    length = {n: fmean(len(p.solution) for p in drawn if p.level == n) for n in range(1, 6)}
    assert sorted(length, key=lambda level: length[level]) == [1, 2, 3, 4, 5]
    assert length[5] >= 4 * length[1]


def test_the_suite_is_the_test_split_and_balanced() -> None:
    rows = read_suite()
    assert len(rows) == 500
    assert len({str(row["question"]) for row in rows}) == 500
    assert [row["level"] for row in rows] == [index % 5 + 1 for index in range(500)]
    # `problems` draws from the test split only, and the file is what it gives.
    expected = [
        (p.id, p.question, p.answer, p.level, p.family) for p in problems(2026, "test", 500)
    ]
    fields = ("id", "question", "answer", "level", "family")
    assert [tuple(row[field] for field in fields) for row in rows] == expected


def test_the_probe_suffix_opens_a_box() -> None:
    assert PROBE_SUFFIX.startswith("\n")
    assert PROBE_SUFFIX.endswith("\\boxed{")
