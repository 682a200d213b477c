"""AgentWrite by hand: the plan, the parts, their lengths."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.agentwrite import AgentWrite, Care
from algorithms.program import Generation, Sampling
from algorithms.writing_plan import (
    LEAST_WORDS,
    LONGEST_POINT,
    MOST_PARTS,
    Part,
    fitted,
    read_plan,
    without_number,
)

PLAN = """Sure! Here is the plan:
Part 1: How it began - 100 words
**Part 2:** The middle, [independent] - 1,00 words
Part 2: What happened then - 200 words
Paragraph 3 - Main Point: an aside [independent] - Word Count: 100 words
"""


def make(words=400, **care):
    sampling = Sampling(max_tokens=5000, seed=5)
    return AgentWrite("q", "Write a story.", words=words, sampling=sampling, care=Care(**care))


def said(request, text, reason="stop"):
    return Generation(request.id, text, 10, finish_reason=reason)


def essay(words):
    return "word " * words


def planned(program, text=PLAN):
    (request,) = program.propose(9)
    program.receive(said(request, text))
    return program


def test_a_plan_is_read_line_by_line():
    assert read_plan(PLAN) == [
        Part("How it began", 100),
        Part("What happened then", 200),
        Part("Main Point: an aside", 100, independent=True),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "1. A numbered line - 100 words",
        "Part 1: too long - 999999 words",
        "Part 1: nothing - 0 words",
        "Part 1 - 100 words",
        "Part 1:",
        "The part 1 is about dogs - 100 words",
    ],
)
def test_other_lines_are_no_parts(line):
    assert read_plan(line) == []


def test_a_plan_without_any_words_has_equal_shares():
    plan = read_plan("Part 1: the sea\n- waves\n\nPart 2: the shore [independent]\n")
    assert plan == [Part("the sea", 1), Part("the shore", 1, True)]
    assert [part.words for part in fitted(plan, 500)] == [250, 250]
    assert read_plan("Part 1: told - 90 words\nPart 2: not told") == [Part("told", 90)]


@given(st.text(max_size=300))
def test_any_text_can_be_read_as_a_plan(text):
    for part in read_plan(text + "\nPart 1: " + text + " - 5 words"):
        assert part.point
        assert part.words >= 1


def test_a_plan_without_end_is_cut():
    assert len(read_plan("Part 1: again - 5 words\n" * 9999)) == MOST_PARTS
    (part,) = read_plan("Part 1: " + "x" * 10**6 + " - 5 words")
    assert len(part.point) == LONGEST_POINT


def test_the_words_of_the_plan_are_fitted_to_those_wanted():
    plan = fitted([Part("a", 100), Part("b", 300)], 1000)
    assert [part.words for part in plan] == [250, 750]
    assert fitted([Part("a", 3)], 1) == [Part("a", 1)]


def test_parts_that_are_too_small_are_joined_with_the_smaller_neighbour():
    plan = [Part("a", 4, True), Part("b", 1, True), Part("c", 2), Part("d", 5, True)]
    assert fitted(plan, 300) == [Part("a; then b; then c", 175), Part("d", 125, True)]
    assert fitted(plan, 150) == [Part("a; then b; then c; then d", 150)]
    assert fitted(plan, 1200) == [
        Part("a", 400, True), Part("b", 100, True), Part("c", 200), Part("d", 500, True)
    ]  # fmt: skip


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=30), st.integers(1, 50_000))
def test_a_fitted_plan_keeps_its_points_in_order_and_its_length(lengths, words):
    plan = fitted([Part(f"<{n}>", length) for n, length in enumerate(lengths)], words)
    assert "; then ".join(part.point for part in plan) == "; then ".join(
        f"<{n}>" for n in range(len(lengths))
    )
    assert len(plan) == 1 or min(part.words for part in plan) >= LEAST_WORDS - 1
    assert abs(sum(part.words for part in plan) - words) <= len(plan)


def test_the_plan_comes_first_and_alone():
    program = make()
    (request,) = program.propose(9)
    assert "about 400 words" in request.prompt[0]["content"]
    assert program.propose(9) == []
    assert program.answer().value is None
    assert program.certainty() == (0.0, "plan", 0)


def test_parts_are_written_in_order_and_independent_ones_beside_them():
    program = planned(make())
    first, aside = program.propose(9)
    assert "part 1 of 3" in first.prompt[0]["content"]
    assert "part 3 of 3" in aside.prompt[0]["content"]
    assert program.propose(9) == []
    program.receive(said(first, "Once upon a time. " + essay(96)))
    (second,) = program.propose(9)
    assert "Once upon a time." in second.prompt[0]["content"], "the text so far is in view"
    program.receive(said(aside, "ASIDE " + essay(99)))
    program.receive(said(second, "THEN " + essay(199)))
    text = program.answer().value
    assert text.index("Once") < text.index("THEN") < text.index("ASIDE")
    assert program.remaining() == 0
    assert program.certainty().value == pytest.approx(1.0)


def test_one_after_the_other_as_in_the_paper():
    program = planned(make(parallel=False))
    assert len(program.propose(9)) == 1


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Part 2: The shore\n\nIt rained.", "The shore\n\nIt rained."),
        ("**Paragraph 2:** It rained.", "It rained."),
        ("**Part 2**\n\nIt rained.", "It rained."),
        ("### Section 2 of 4: The shore\nIt rained.", "### The shore\nIt rained."),
        ("Part 2", ""),
        ("Part 2 of the story was wet.", "Part 2 of the story was wet."),
        ("Section 1.2 was wet.", "Section 1.2 was wet."),
        ("Partly 2: wet.", "Partly 2: wet."),
    ],
)
def test_the_number_of_a_part_is_no_text(said, kept):
    assert without_number(said) == kept


@given(st.text(max_size=60))
def test_nothing_but_the_first_line_is_touched(text):
    assert without_number(f"Part 1: x\n{text}.").endswith(f"{text}.".strip())


def test_a_part_that_misses_its_length_is_written_again_and_the_nearest_is_kept():
    program = planned(make(words=100, attempts=3), "Part 1: all - 100 words")
    for words in (40, 250, 60):
        (request,) = program.propose(9)
        program.receive(said(request, essay(words)))
    assert program.propose(9) == []
    assert len(program.answer().value.split()) == 60
    assert program.remaining() == 0


@pytest.mark.parametrize("lengths", [(8, 236, 9), (236, 8, 9), (8, 9, 236)])
def test_a_text_that_is_too_long_is_better_than_a_refusal(lengths):
    program = planned(make(words=100), "Part 1: all - 100 words")
    for words in lengths:
        program.receive(said(program.propose(9)[0], essay(words)))
    assert len(program.answer().value.split()) == 236


def test_an_attempt_again_says_what_was_wrong():
    program = planned(make(words=100), "Part 1: all - 100 words")
    program.receive(said(program.propose(1)[0], essay(300)))
    (again,) = program.propose(1)
    assert "has 300 words and should have about 100" in again.prompt[0]["content"]
    assert "shorter" in again.prompt[0]["content"]
    assert again.sampling.seed == 7, "another seed than before"


def test_a_refusal_is_not_shown_to_who_writes_the_part_again():
    program = planned(make(words=100), "Part 1: all - 100 words")
    (first,) = program.propose(1)
    program.receive(said(first, "I'm sorry, but I can't assist with that."))
    (again,) = program.propose(1)
    assert again.prompt == first.prompt
    assert again.sampling.seed != first.sampling.seed


def test_a_part_of_several_that_was_refused_is_asked_for_in_fewer_words():
    program = planned(make())
    (first, _) = program.propose(9)
    assert "The plan:" in first.prompt[0]["content"]
    program.receive(said(first, "", "error"))
    (again,) = program.propose(9)
    assert again.prompt[0]["content"].endswith("in about 100 words: How it began")


def test_a_plan_that_cannot_be_read_is_asked_for_again_and_then_done_without():
    program = make(words=100, attempts=2)
    for text in ("I would rather not.", ""):
        (request,) = program.propose(9)
        program.receive(said(request, text))
    assert program.plan == (Part("all of the text", 100),)


def test_a_part_that_only_fails_stays_empty_and_the_others_are_written():
    program = planned(make(attempts=1, parallel=False))
    for reason in ("stop", "error", "aborted"):
        (request,) = program.propose(1)
        program.receive(said(request, essay(100), reason))
    assert program.remaining() == 0
    assert [bool(text) for text in program.texts] == [True, False, False]
    assert program.certainty().value == pytest.approx(1 / 3)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=40), st.sampled_from(["stop", "length", "error"]))),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_it_ends_whatever_comes_back(results, attempts, random):
    program = make(attempts=attempts)
    running, seen = [], set()
    for _ in range(100):
        running += program.propose(2)
        if not running:
            break
        request = running.pop(random.randrange(len(running)))
        assert request.id not in seen
        seen.add(request.id)
        text, reason = (
            results.pop() if results else (PLAN if random.random() < 0.5 else "x", "stop")
        )
        program.receive(said(request, text, reason))
    assert program.remaining() == 0
    assert not running
    assert len(seen) <= attempts * (1 + MOST_PARTS)
