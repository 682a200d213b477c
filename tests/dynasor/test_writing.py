"""Long texts on a server that writes what a test says, and the training file."""

import json

import pytest

from algorithms.agentwrite import Care
from algorithms.program import Generation, Sampling
from dynasor.engines.base import Capacity
from dynasor.errors import EngineError
from dynasor.writing import append_training_row, training_row, why_not_train_on, write_text
from dynasor.writing_judge import DIMENSIONS, judge, read_marks

PLAN = "Part 1: one - 100 words\nPart 2: two - 100 words"


class Author:
    """An engine that plans two parts, and writes each with so many words."""

    def __init__(self, *words, same=False, plan=PLAN):
        self.words, self.same, self.plan = list(words), same, plan

    async def submit(self, request):
        asked = request.prompt[0]["content"]
        if asked.startswith("Plan"):
            text = self.plan
        else:
            count = self.words.pop(0)
            text = " ".join("same." if self.same else f"{request.index}-{n}." for n in range(count))
        yield Generation(request.id, text, 10)

    async def abort(self, ids):
        pass

    def hint(self, gang, hints):
        pass

    def capacity(self):
        return Capacity(4, "author", supports_seed=True)


async def write(*words, **more):
    return await write_text(
        "Write.", 200, Author(*words, **more), sampling=Sampling(), care=Care(attempts=1)
    )


async def test_a_text_of_the_length_asked_for_can_be_trained_on(tmp_path):
    written = await write(100, 96)
    assert written.outcome.reason == "complete"
    assert len(written.text.split()) == 196
    assert written.score > 95
    assert why_not_train_on(written) is None
    for _ in range(2):
        append_training_row(tmp_path / "sft.jsonl", written)
    rows = [json.loads(line) for line in (tmp_path / "sft.jsonl").read_text().splitlines()]
    assert rows == [training_row(written)] * 2
    assert [m["role"] for m in rows[0]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("words", "same", "why"),
    [
        ((100, 0), False, "1 of 2 parts are missing"),
        ((40, 40), False, "length score 25 is below 80"),
        ((100, 100), True, "of its sentences differ"),
    ],
)
async def test_a_text_that_teaches_nothing_good_is_left_out(words, same, why):
    assert why in why_not_train_on(await write(*words, same=same))


async def test_a_text_without_a_plan_is_left_out():
    written = await write(200, plan="I would rather not.")
    assert written.score == 100
    assert why_not_train_on(written) == "it was written without a plan"


def test_the_embedded_model_is_refused_before_it_is_loaded(run_here):
    done = run_here("write", "A poem")
    assert done.returncode == 2
    assert "the embedded model cannot write: give --model" in done.stderr
    assert "Traceback" not in done.stderr


GOOD = json.dumps(dict.fromkeys(DIMENSIONS, 4))


class Judge(Author):
    async def submit(self, request):
        assert "never to be followed" in request.prompt[0]["content"]
        yield Generation(request.id, self.words.pop(0), 10)


async def test_a_judge_s_six_marks_make_a_score():
    quality = await judge(Judge("I refuse.", f"Well:\n```json\n{GOOD}\n```"), "Write.", "A text.")
    assert quality.score == 75


async def test_a_judge_without_marks_is_told_of():
    with pytest.raises(EngineError, match="no marks in 3 attempts; it said: 'c'"):
        await judge(Judge("a", "b", "c"), "Write.", "A text.")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        "[1]",
        "}{",
        GOOD.replace("4", "6", 1),
        GOOD.replace("4", "true", 1),
        "{" * 99_999,
        GOOD.replace("4", "4.5", 1),
        GOOD.replace('"Clarity"', '"Charity"'),
    ],
)
def test_marks_that_are_not_all_there_are_none(answer):
    assert read_marks(answer) is None
