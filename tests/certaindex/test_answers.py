"""Reading answers out of model output, and their canonical spelling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certaindex.answers import (
    EXTRACTORS,
    FALLBACK,
    MAX_SCANNED_CHARS,
    Extracted,
    extract,
    extractor,
)
from certaindex.canonical import MAX_ANSWER_CHARS, canonical

HOSTILE = [
    r"\boxed{{{{" * 100_000,
    r"\boxed{" * 150_000,
    "\\boxed" * 200_000,
    "\\boxed " * 150_000,
    "\\boxed" + " " * 1_000_000,
    "{" * 1_000_000,
    "}" * 1_000_000,
    "\\" * 1_000_000,
    "\\boxed{" + "\\" * 1_000_000 + "}",
    "\\boxed{" + "{" * 500_000 + "}" * 500_001,
    "answer is " * 100_000,
    "the answer is" + " " * 1_000_000,
    "answer" * 150_000,
    "answer is " + "$" * 1_000_000,
    "answer is \\(" + "\\( " * 300_000,
    "#" * 1_000_000,
    "#### " * 200_000,
    "####" + " " * 1_000_000,
    "1," * 500_000,
    "1" * 1_000_000,
    "1,111" * 200_000,
    "-" * 1_000_000,
    "1/" * 500_000,
    "." * 1_000_000,
    "(A" * 500_000,
    "option " * 150_000,
    "*" * 1_000_000,
    "\n" * 1_000_000,
    "\0" * 1_000_000,
    "\ud800" * 100_000,
    "$" * 999_999,
    r"\text{" * 150_000,
    r"\left" * 200_000,
    r"\frac" * 200_000,
    "9**9**9**9",
    "__import__('os').system('true')",
]

TABLE = [
    ("boxed", r"so \boxed{5}.", "5"),
    ("boxed", r"\boxed{1} then \boxed{2}", "2"),
    ("boxed", r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    ("boxed", r"\boxed{ {a}{b{c}} }", "{a}{b{c}}"),
    ("boxed", r"\fbox{7}", "7"),
    ("boxed", r"\boxed{1} \fbox{2}", "2"),
    ("boxed", r"\boxed {3}", "3"),
    ("boxed", r"\boxed{\left\{1,2\right\}}", r"\left\{1,2\right\}"),
    ("boxed", r"\boxed{\{1\}", None),
    ("boxed", r"\boxed{1", None),
    ("boxed", r"\boxed{1} and \boxed{2", None),
    ("boxed", r"\boxed{}", None),
    ("boxed", r"\boxed{4} as asked: in \boxed", "4"),
    ("boxed", r"\boxed{\boxed{5}}", "5"),
    ("boxed", "nothing", None),
    ("boxed", "", None),
    ("boxed", "\\boxed{" + "1" * (MAX_ANSWER_CHARS + 1) + "}", None),
    ("gsm8k", "2+2=4\n#### 4", "4"),
    ("gsm8k", "#### 1\n#### 1,234 \nbye", "1,234"),
    ("gsm8k", "####", None),
    ("gsm8k", "#### \n5", None),
    ("answer-is", "The answer is 5.", "5"),
    ("answer-is", "The answer is 5.25. I hope", "5.25"),
    ("answer-is", "Final Answer: **42**", "42"),
    ("answer-is", "**Answer:** 42", "42"),
    ("answer-is", "The final answer is: $\\frac{1}{2}$. Done", r"\frac{1}{2}"),
    ("answer-is", "the answer is \\(x^2\\)", "x^2"),
    ("answer-is", "the answer is $\\boxed{9}$", "9"),
    ("answer-is", "the answer is \\boxed{9} apples", "9"),
    ("answer-is", "The answer is 1. No, the answer is 2!", "2"),
    ("answer-is", "the answer is 5, because it is.", "5"),
    ("answer-is", "The answer is:\n\n17\n", "17"),
    ("answer-is", "the answer is Paris\nThat is all", "Paris"),
    ("answer-is", "answers islands", None),
    ("choice", "The answer is (B).", "B"),
    ("choice", "The correct answer is B", "B"),
    ("choice", "Answer: C", "C"),
    ("choice", "**Answer: C**", "C"),
    ("choice", "answer is **D**", "D"),
    ("choice", r"\boxed{\text{E}}", "E"),
    ("choice", r"\boxed{B. 5 cm}", "B"),
    ("choice", r"\boxed{\textbf{(C)}\ 7}", "C"),
    ("choice", "the answer is (b)", "B"),
    ("choice", "answer: $\\boxed{J}$", "J"),
    ("choice", "I choose option F because", "F"),
    ("choice", "I considered (A) and (C)", "C"),
    ("choice", "Reasoning.\nB", "B"),
    ("choice", "Reasoning.\n**B) Photosynthesis**", "B"),
    ("choice", "The answer is A.", "A"),
    ("choice", "The answer is A because", "A"),
    ("choice", "The answer is A good thing", None),
    ("choice", "The answer is K", None),
    ("choice", "Because", None),
    ("number", "we get 3 then 4.", "4"),
    ("number", "costs $1,234.50 in all", "$1,234.50"),
    ("number", "is -7", "-7"),
    ("number", "3-5", "5"),
    ("number", "3/4 of it", "3/4"),
    ("number", "about 50% more", "50%"),
    ("number", "x2 only", None),
    ("number", "none", None),
    ("math", r"The answer is 3, so \boxed{4}", "4"),
    ("math", "The answer is 3. 9 left", "3"),
    ("math", "#### 8 and 9", "8 and 9"),
    ("math", "perhaps 8 or 9", "9"),
    ("math", "dunno", None),
]

CANONICAL = [
    (" 5 ", "5"),
    ("$5$", "5"),
    (r"\$5", "5"),
    (r"\(5\)", "5"),
    ("**5**", "5"),
    ("5.", "5"),
    ("5.0", "5"),
    ("0.50", "0.5"),
    (".5", "0.5"),
    ("007", "7"),
    ("+3", "3"),
    ("-0", "0"),
    ("-0.50", "-0.5"),
    ("1,234,567", "1234567"),
    ("1{,}234", "1234"),
    (r"1\,234", "1234"),
    (r"1,\!234", "1234"),
    (r"50\%", "50%"),
    ("50 %", "50%"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\tfrac12", r"\frac{1}{2}"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"5\text{ cm}", "5 cm"),
    (r"5\text{cm}", "5 cm"),
    (r"5 \mathrm{~cm}", "5 cm"),
    (r"\textbf{(B)}", "(B)"),
    (r"x \leq 5", r"x\le5"),
    (r"5 \pi r", r"5\pi r"),
    ("5   cm", "5 cm"),
    (r"2 + 2 \sqrt{3}", r"2+2\sqrt{3}"),
    ("90°", r"90^\circ"),
    (r"90^{\circ}", r"90^\circ"),
    ("x^{2}", "x^2"),
    ("−5", "-5"),  # noqa: RUF001
    ("2π", r"2\pi"),
]

DIFFERENT = [
    ("1, 234", "1,234"),
    ("0.333...", "0.333"),
    ("x^{2}3", "x^23"),
    ("1.5", "15"),
    ("-5", "5"),
    ("12 13", "1213"),
    (r"\cos x", r"\cosx"),
    ("0,123", "0123"),
    ("(1,2]", "[1,2)"),
    ("A", "a"),
    (r"a \\ b", "a b"),
    ("50%", "50"),
    (r"\leftarrow 5", "arrow 5"),
]


@pytest.mark.parametrize(("name", "text", "answer"), TABLE)
def test_reads_the_answer(name: str, text: str, answer: str | None) -> None:
    assert extract(text, name) == answer


def test_says_by_which_rule() -> None:
    read = extractor("math")
    assert read(r"\boxed{1}") == Extracted("1", "boxed")
    assert read("the answer is 1") == Extracted("1", "answer-is")
    assert read("#### 1") == Extracted("1", "gsm8k")
    assert read("1") == Extracted("1", FALLBACK)
    assert read("") is None


def test_unknown_rule_lists_the_rules() -> None:
    with pytest.raises(ValueError, match=r"boxed.*gsm8k.*answer-is.*choice.*number.*math"):
        extractor("boxd")
    with pytest.raises(ValueError, match="boxd"):
        extract("", "boxd")


@pytest.mark.parametrize("name", EXTRACTORS)
def test_hostile_text_ends(name: str) -> None:
    for text in HOSTILE:
        answer = extract(text, name)
        assert answer is None or 0 < len(answer) <= MAX_ANSWER_CHARS
    assert extract("the answer is B\n#### 5", name) is not None or name == "boxed"


def test_only_the_end_is_read() -> None:
    text = r"\boxed{1}" + " " * MAX_SCANNED_CHARS
    assert extract(text, "boxed") is None
    assert extract(text + r"\boxed{2}", "boxed") == "2"
    assert extract("#### 1\n" + " " * MAX_SCANNED_CHARS, "gsm8k") is None


balanced = st.recursive(
    st.text("ab12 +", max_size=5),
    lambda inner: st.tuples(inner, inner).map(lambda pair: f"{pair[0]}{{{pair[1]}}}"),
    max_leaves=12,
)


@given(balanced, st.text(max_size=30))
@settings(deadline=None)
def test_nested_braces_round_trip(content: str, before: str) -> None:
    assert extract(f"{before}\n\\boxed{{{content}}}.", "boxed") == (content.strip() or None)


@given(st.text(max_size=200), st.sampled_from(list(EXTRACTORS)))
@settings(deadline=None)
def test_any_text_is_read_without_error(text: str, name: str) -> None:
    answer = extract(text, name)
    assert answer is None or (answer and answer in text) or name == "choice"


@pytest.mark.parametrize(("written", "expected"), CANONICAL)
def test_canonical_spelling(written: str, expected: str) -> None:
    assert canonical(written) == expected


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_canonical_keeps_different_answers_apart(a: str, b: str) -> None:
    assert canonical(a) != canonical(b)


latexlike = st.text("01259.,%$+-/ \\{}()[]abx^_~!;:*`", max_size=40) | st.lists(
    st.sampled_from(
        [
            r"\text{",
            r"\frac",
            r"\left",
            r"\right.",
            "}",
            "{",
            "1",
            ",",
            " ",
            r"\,",
            "234",
            ".",
            "**",
        ]
        + [r"\\", r"\!", "$", "^", r"\circ", "-", "0", r"\boxed", "`", "°", "π", "a", r"\dfrac"]
    ),
    max_size=20,
).map("".join)


@given(st.text(max_size=60) | latexlike)
@settings(deadline=None, max_examples=400)
def test_canonical_is_idempotent(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


@given(st.integers(), st.integers())
@settings(deadline=None)
def test_canonical_integers_are_equal_iff_equal(a: int, b: int) -> None:
    assert (canonical(f"{a:,}") == canonical(str(b))) == (a == b)
    assert canonical(f"{a}.00") == str(a)


def test_canonical_of_hostile_text_ends() -> None:
    for text in HOSTILE:
        for size in (MAX_ANSWER_CHARS - 5, len(text)):
            once = canonical(text[:size])
            assert canonical(once) == once
