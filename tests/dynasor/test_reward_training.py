"""What the embedded reward model learns from, and what it makes of it."""

import math

import pytest

pytest.importorskip("transformers")

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from dynasor.embedded_model import path, reward_path
from dynasor.embedded_model.evaluate_reward import Scored, auc, within_questions
from dynasor.embedded_model.label_steps import labelled
from dynasor.embedded_model.problems import Problem
from dynasor.embedded_model.slips import Slips, features_of, written
from dynasor.embedded_model.train_reward import exposed, fit, right_tokens
from dynasor.errors import DataError

QUESTION = "Tom has 14 shells. He finds 8 more. He loses 5. How many shells does Tom have now?"
WORKED = "14 + 8 = 22\n22 - 5 = 17\nThe answer is \\boxed{17}."
PROBLEM = Problem("p", "story", 1, QUESTION, WORKED, "17")
WRONG = "14 + 8 = 23\n23 - 5 = 18\nThe answer is \\boxed{18}."


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(path())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("text", "right", "correct"),
    [
        (WORKED, WORKED, True),
        (WRONG, "14 + 8 = 2", False),
        ("14 + 8 = 22\n22 - 5 = 18\nThe answer is \\boxed{17}.", "14 + 8 = 22\n22 - 5 = 1", True),
        ("14 + 8 = 22", "14 + 8 = 22", False),
        ("", "", False),
    ],
)
def test_a_solution_is_right_up_to_where_it_differs(tokenizer, text, right, correct):
    solution = labelled(PROBLEM, text)
    assert (solution.text[: solution.right], solution.correct) == (right, correct)
    ids = tokenizer.encode(text, add_special_tokens=False)[: right_tokens(solution, tokenizer)]
    assert tokenizer.decode(ids) == right, "digits and newlines are tokens of their own"


def test_features_are_the_log_odds_of_what_was_written(tokenizer, model):
    text = written(QUESTION, WRONG, tokenizer)
    short = written(QUESTION, "14", tokenizer)
    (features, padded) = features_of(model, [text, short])
    alone = features_of(model, [short])[0]
    assert torch.allclose(padded, alone, atol=1e-4), "padding changes nothing"
    place = text.given + len(tokenizer.encode("14 + 8 = 2", add_special_tokens=False))
    with torch.inference_mode():
        told = model(input_ids=torch.tensor([text.ids])).logits[0, place - 1].softmax(-1)
    wrong = told[text.ids[place]].item()
    assert features[place - text.given, 0].item() == pytest.approx(
        math.log(wrong / (1 - wrong)), abs=1e-3
    )
    assert (features[:, 0] <= features[:, 1]).all(), "the likeliest is the likeliest"


def test_only_tokens_up_to_the_first_wrong_one_teach(tokenizer):
    features, slipped = exposed([labelled(PROBLEM, WORKED), labelled(PROBLEM, WRONG)])
    whole = len(tokenizer.encode(WORKED, add_special_tokens=False))
    until = len(tokenizer.encode("14 + 8 = 23", add_special_tokens=False))
    assert len(features) == len(slipped) == whole + until
    assert slipped.sum() == 1


def test_fitting_finds_the_numbers_that_made_the_data():
    true = Slips(0.5, -1.5, 0.25)
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(40_000, 2, generator=draw) * 2
    odds = features @ torch.tensor([true.chosen, true.best]) + true.bias
    slipped = torch.rand(len(odds), generator=draw) < odds.sigmoid()
    found = fit(features, slipped)
    for name in ("bias", "chosen", "best"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), abs=0.08)


@given(st.lists(st.tuples(st.floats(-14, 14), st.floats(-14, 14)), min_size=1, max_size=30))
def test_what_is_right_so_far_never_becomes_more_probable(values):
    slips = Slips.read(reward_path())
    right = slips.right_so_far(torch.tensor(values)).exp()
    assert ((right >= 0) & (right <= 1)).all()
    assert (right.diff() <= 1e-7).all()


def test_a_file_that_is_no_reward_model_is_named(tmp_path):
    for text in ("", "[]", '{"bias": 1}', '{"bias": "x", "chosen": 1, "best": 1}'):
        (tmp_path / "reward.json").write_text(text)
        with pytest.raises(DataError, match=r"reward\.json is no reward model"):
            Slips.read(tmp_path / "reward.json")


def test_auc_within_questions_leaves_out_how_hard_they_are():
    easy = [Scored("easy", right, (score,)) for right, score in [(True, 9.0), (False, 8.0)]]
    hard = [Scored("hard", right, (score,)) for right, score in [(True, 2.0), (False, 1.0)]]
    both = [*easy, *hard]
    assert within_questions(both, 1.0) == 1.0
    assert auc([each.at(1.0) for each in both], [each.right for each in both]) == 0.75
    assert math.isnan(within_questions([Scored("all right", True, (1.0,))], 1.0))
