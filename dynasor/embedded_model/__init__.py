"""The embedded model: a tiny reasoning model that is trained here, from scratch, on a CPU.

It solves word problems of five difficulties step by step, is right sometimes and unsure often,
and so shows on any machine, without a download, what a compute allocator does to reasoning:
votes of several samples, answers probed in the middle of a solution, problems that need more.
`weights/` holds the model, `test.jsonl` the held-out problems; `problems`, `train` and `evaluate`
are how both came to be.
"""

import pathlib

_HERE = pathlib.Path(__file__).resolve().parent


def path() -> pathlib.Path:
    """The folder with the weights, the tokenizer and the model card."""
    return _HERE / "weights"


def reward_path() -> pathlib.Path:
    """The file with the process reward model: how probable the model's tokens are to be slips."""
    return _HERE / "reward.json"


def evidence() -> pathlib.Path:
    """What its samples' likelihood says, as `dynasor evidence` learned it from validation problems."""
    return _HERE / "evidence.json"


def test_suite() -> pathlib.Path:
    """The file with the 500 held-out problems, one JSON object a line."""
    return _HERE / "test.jsonl"
