"""What clients may not ask for, and what they hear of it."""

import openai
import pytest

from tests.serving.running_server import MODEL, QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine

SC = f"{MODEL}:self-consistency"


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("model", "other", 404),
        ("model", f"{MODEL}:magic", 404),
        ("messages", [], 400),
        ("messages", [{"role": "tool", "content": "x"}], 400),
        ("messages", [{"role": "user", "content": [{"type": "image_url"}]}], 400),
        ("n", 0, 400),
        ("n", 1000, 400),
        ("temperature", 3, 400),
        ("top_p", 0, 400),
        ("max_tokens", 0, 400),
        ("max_tokens", 10**8, 400),
        ("max_completion_tokens", 10**8, 400),
        ("stop", [""], 400),
        ("tools", [{"type": "function"}], 400),
        ("response_format", {"type": "json_object"}, 400),
        ("presence_penalty", 0.5, 400),
        ("logit_bias", {"1": 2}, 400),
        ("continue_final_message", True, 400),
        ("add_generation_prompt", False, 400),
        ("reasoning_effort", "extreme", 400),
        ("colour", "blue", 400),
        ("dynasor.magic", 1, 400),
        ("dynasor.budget.samples", 1000, 400),
        ("dynasor.budget.seconds", 1e5, 400),
        ("dynasor.deadline_ms", 10**9, 400),
        ("dynasor.stop.rule", "magic", 400),
        ("dynasor.priority", 9, 400),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(shared, field, value, status):
    body = {"model": MODEL, "messages": QUESTION}
    place = body
    *path, last = field.split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    if field == "dynasor.budget.samples":
        body["model"] = SC
    async with shared.http() as http:
        response = await http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert response.status_code == status
    assert error["param"].startswith(field)
    assert error["message"]
    assert error["type"]


@pytest.mark.parametrize(
    ("model", "more", "param"),
    [
        (SC, {}, "continue_final_message"),
        (MODEL, {"add_generation_prompt": True}, "add_generation_prompt"),
        (MODEL, {"messages": [{"role": "assistant", "content": "so"}]}, "continue_final_message"),
    ],
)
async def test_only_a_plain_answer_that_was_begun_is_gone_on_with(shared, model, more, param):
    messages = [*QUESTION, {"role": "assistant", "content": "so"}]
    body = {"model": model, "messages": messages, "continue_final_message": True, **more}
    async with shared.http() as http:
        response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_several_answers_and_reasoning_contradict_each_other(shared):
    with pytest.raises(openai.BadRequestError, match="n: self-consistency gives one answer"):
        await shared.openai().chat.completions.create(model=SC, messages=QUESTION, n=2)


async def test_an_engine_that_cannot_repeat_samples_refuses_a_seed():
    async with running(ScriptedEngine(seeds=False)) as server:
        with pytest.raises(openai.BadRequestError, match="seed"):
            await server.openai().chat.completions.create(model=MODEL, messages=QUESTION, seed=1)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_fails_is_an_error_and_not_an_answer(stream):
    engine = ScriptedEngine(fails="out of order")
    async with running(engine) as server:
        with pytest.raises(openai.APIError, match="out of order"):
            answer = await server.openai().chat.completions.create(
                model=MODEL, messages=QUESTION, stream=stream
            )
            async for _ in answer:
                pass
