"""Sequence classifiers as reward models: transformers, vLLM's pooling and vLLM's server say the same.

The classifier is the embedded model with a head of random numbers.
"""

import pytest

from dynasor.config import load_config
from dynasor.embedded_model import path as embedded_model
from dynasor.errors import EngineError
from dynasor.rewards.base import Attempt
from dynasor.rewards.build import build_reward
from tests.vllm_server import serve

QUESTION = ({"role": "user", "content": "Tom has 14 shells. He finds 8 more. How many has he?"},)
TEXTS = ["", "14 + 8 = 22\n", "14 + 8 = 23\n", "14 - 8 = 6\n", "14 + 8 = 22\n\\boxed{22}"]
ATTEMPTS = [*(Attempt(QUESTION, text) for text in TEXTS), Attempt("1 + 1", " = 2")]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Folder of a classifier whose rewards lie apart."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        embedded_model(), num_labels=2, dtype=torch.float32
    )
    with torch.no_grad():
        model.score.weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(embedded_model()).save_pretrained(folder)
    return folder


async def scores_of(kind, attempts, **settings):
    reward = {"kind": kind, **settings}
    overrides = {"algorithm": {"name": "rebase", "reward": reward}}
    model = build_reward(load_config(overrides=overrides, environment={}))
    await model.start()
    try:
        return await model.score(attempts)
    finally:
        await model.close()


@pytest.fixture(scope="module")
async def by_transformers(classifier):
    return await scores_of("transformers", ATTEMPTS, model=str(classifier))


async def test_a_batch_says_of_each_attempt_what_it_says_of_it_alone(classifier, by_transformers):
    alone = [
        (await scores_of("transformers", [attempt], model=str(classifier)))[0]
        for attempt in ATTEMPTS
    ]
    assert by_transformers == pytest.approx(alone, abs=1e-4)
    assert all(0 <= reward <= 1 for reward in alone)
    assert max(alone) - min(alone) > 0.2, "they lie apart"


async def test_vllm_s_pooling_says_the_same(classifier, by_transformers):
    pytest.importorskip("vllm")
    rewards = await scores_of("vllm", ATTEMPTS, model=str(classifier))
    assert rewards == pytest.approx(by_transformers, abs=0.05)


@pytest.mark.slow
async def test_vllm_s_server_says_the_same(classifier, by_transformers, tmp_path):
    pytest.importorskip("vllm")
    options = ("--runner", "pooling", "--convert", "classify")
    with serve(tmp_path / "log.txt", model=classifier, options=options) as server:
        rewards = await scores_of("server", ATTEMPTS, base_url=server.url)
    assert rewards == pytest.approx(by_transformers, abs=0.05)


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
async def test_a_model_that_is_not_there_is_named(tmp_path, kind):
    pytest.importorskip(kind)
    with pytest.raises(EngineError, match="nowhere"):
        await scores_of(kind, ATTEMPTS, model=str(tmp_path / "nowhere"))
