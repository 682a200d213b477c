"""What the process reward model learns from, and what it begins as."""

import pytest

pytest.importorskip("transformers")

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from dynasor.embedded_model import path
from dynasor.embedded_model.evaluate_reward import Scored, auc, within_questions
from dynasor.embedded_model.label_steps import labelled
from dynasor.embedded_model.problems import Problem
from dynasor.embedded_model.train_reward import batch_of, batches, deepened, example_of

WORKED = "14 + 8 = 22\n22 - 5 = 17\nThe answer is \\boxed{17}."
PROBLEM = Problem("p", "story", 1, "How many are 14 and 8, less 5?", WORKED, "17")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(path())


@pytest.mark.parametrize(
    ("text", "right", "correct"),
    [
        (WORKED, WORKED, True),
        ("14 + 8 = 23\n23 - 5 = 18\nThe answer is \\boxed{18}.", "14 + 8 = 2", False),
        ("14 + 8 = 22\n22 - 5 = 18\nThe answer is \\boxed{17}.", "14 + 8 = 22\n22 - 5 = 1", True),
        ("14 + 8 = 22", "14 + 8 = 22", False),
        ("", "", False),
    ],
)
def test_a_solution_is_right_up_to_where_it_differs(tokenizer, text, right, correct):
    solution = labelled(PROBLEM, text)
    assert (solution.text[: solution.right], solution.correct) == (right, correct)
    example = example_of(solution, tokenizer)
    written = example.ids[example.given :]
    assert tokenizer.decode(written) == text
    kept = [token for token, label in zip(written, example.right, strict=True) if label]
    assert tokenizer.decode(kept) == right, "digits and newlines are tokens of their own"
    assert sorted(example.right, reverse=True) == example.right


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(50, 500))
def test_an_epoch_has_each_example_once(tokenizer, cuts, tokens):
    examples = [example_of(labelled(PROBLEM, WORKED[:cut]), tokenizer) for cut in cuts]
    parts = list(batches(examples, tokens, seed=1))
    assert sorted(id(one) for part in parts for one in part) == sorted(map(id, examples))
    for part in parts:
        batch = batch_of(part)
        assert batch.right.tolist() == [label for one in part for label in one.right]
        assert len(part) == 1 or batch.ids.numel() <= tokens


def test_new_layers_change_nothing_before_they_have_learned(tokenizer):
    model = deepened(path(), 2)
    below = AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32)
    batch = batch_of([example_of(labelled(PROBLEM, WORKED), tokenizer)])
    with torch.inference_mode():
        deep = model.model(input_ids=batch.ids).last_hidden_state
        assert torch.equal(deep, below.model(input_ids=batch.ids).last_hidden_state)
    learned = {name for name, each in model.named_parameters() if each.requires_grad}
    assert {name.split(".")[2] for name in learned if "layers" in name} == {"4", "5"}
    assert "score.weight" in learned
    assert not any("embed" in name for name in learned)


def test_auc_within_questions_leaves_out_how_hard_they_are():
    easy = [Scored("easy", right, (score,)) for right, score in [(True, 9.0), (False, 8.0)]]
    hard = [Scored("hard", right, (score,)) for right, score in [(True, 2.0), (False, 1.0)]]
    both = [*easy, *hard]
    assert within_questions(both, 1.0) == 1.0
    assert auc([each.at(1.0) for each in both], [each.right for each in both]) == 0.75
    assert (
        within_questions([Scored("all right", True, (1.0,))], 1.0) != 0
    )  # nothing to compare: NaN
