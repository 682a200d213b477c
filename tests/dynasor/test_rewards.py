"""Reward models: a server that answers well or badly, functions by name, the embedded classifier."""

import json

import pytest

from dynasor.config import load_config
from dynasor.errors import ConfigError, EngineError
from dynasor.rewards.base import Attempt
from dynasor.rewards.build import build_reward
from dynasor.rewards.endpoint import EndpointReward
from dynasor.rewards.function import function_named
from tests.scripted_server import ScriptedServer, status

QUESTION = ({"role": "user", "content": "2 + 2 = ?"},)


def answers(body):
    async def reply(exchange):
        await exchange.head(200, "application/json")
        await exchange.send(json.dumps(body).encode())

    return reply


def probabilities(*values):
    return answers({"data": [{"index": 0, "label": "x", "probs": list(values), "num_classes": 2}]})


async def test_a_server_is_asked_by_chat_and_its_last_label_counts():
    async with ScriptedServer(default=probabilities(0.2, 0.8)) as server:
        reward = EndpointReward(server.url, model="prm", api_key="secret", timeout=5)
        await reward.start()
        assert await reward.score([Attempt(QUESTION, "4"), Attempt("2 + 2 =", " 4")]) == [0.8, 0.8]
        await reward.close()
        chat, text = sorted(server.bodies[1:], key=lambda body: "input" in body)
        assert server.exchanges[0].path == "/classify"
        assert server.exchanges[0].headers["authorization"].lower() == "bearer secret"
    assert chat["messages"] == [*QUESTION, {"role": "assistant", "content": "4"}]
    assert chat["continue_final_message"] is True
    assert chat["add_generation_prompt"] is False
    assert text == {"model": "prm", "input": "2 + 2 = 4"}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (status(404), "404"),
        (status(500), "500"),
        (answers({"data": []}), r"no data\[0\]\.probs"),
        (answers([1]), r"no data\[0\]\.probs"),
        (probabilities("much"), "must hold numbers"),
    ],
)
async def test_a_server_that_does_not_score_is_named(reply, message):
    async with ScriptedServer(default=reply) as server:
        reward = EndpointReward(server.url, timeout=5)
        with pytest.raises(EngineError, match=message):
            await reward.start()
        await reward.close()


def test_a_function_is_found_by_name():
    assert function_named("math:hypot")(3, 4) == 5.0


@pytest.mark.parametrize(
    "name", ["", "math", "math:", ":hypot", "math:nothing", "no_such:f", "math:pi"]
)
def test_what_is_no_function_is_refused(name):
    with pytest.raises(ConfigError, match=r"algorithm\.reward\.model"):
        function_named(name)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"kind": "server"}, "base_url is not set"),
        ({"kind": "vllm"}, "model is not set"),
        ({"kind": "transformers"}, "model is not set"),
        ({"kind": "function"}, "model is not set"),
    ],
)
def test_a_setting_that_is_missing_is_named(reward, message):
    overrides = {"algorithm": {"name": "rebase", "reward": reward}}
    with pytest.raises(ConfigError, match=message):
        build_reward(load_config(overrides=overrides, environment={}))


async def test_the_embedded_model_s_own_knows_a_wrong_line_from_a_right_one(rows):
    pytest.importorskip("transformers")
    reward = build_reward(load_config(overrides={"algorithm": {"name": "rebase"}}, environment={}))
    await reward.start()
    question = (
        {
            "role": "user",
            "content": "Tom has 14 shells. He finds 8 more. He loses 5. "
            "How many shells does Tom have now?",
        },
    )
    texts = ["14 + 8 = 22\n", "14 + 8 = 23\n", "14 - 8 = 6\n", "14 + 8 = 22\n22 - 5 = 17\n"]
    right, wrong, other, both = await reward.score([Attempt(question, text) for text in texts])
    await reward.close()
    assert all(0 <= value <= 1 for value in (right, wrong, other, both))
    assert min(right, both) > max(wrong, other) + 0.2


async def test_the_order_of_a_batch_does_not_matter():
    pytest.importorskip("transformers")
    reward = build_reward(load_config(overrides={"algorithm": {"name": "rebase"}}, environment={}))
    await reward.start()
    attempts = [Attempt(QUESTION, "1 + 1 = 2\n" * n) for n in range(1, 8)]
    forth = await reward.score(attempts)
    back = await reward.score(attempts[::-1])
    assert forth == pytest.approx(back[::-1], abs=1e-5)
