"""A remote engine that misbehaves hurts the queries that it misbehaves on, and no others."""

import asyncio

import openai
import pytest

from dynasor.engines.openai import OpenAIEngine
from tests.scripted_server import ScriptedServer, drop, events, stall, status, stream
from tests.serving.running_server import QUESTION, running

FAULTS = {
    "500s": status(500, "kaputt"),
    "stalls in the middle": stall("half an "),
    "hangs up": drop,
    "sends garbage": events("{not json", "at all"),
    "sends something else": events({"choices": 3}),
    "counts nonsense": events(
        {"choices": [], "usage": {"completion_tokens": "many", "prompt_tokens": 1}}
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_contained_to_its_own_query(fault):
    async with ScriptedServer(default=stream("it ", "is ", "\\boxed{4}")) as remote:
        engine = OpenAIEngine([remote.url], timeout=3.0, retries=0)
        async with running(engine) as server:
            client = server.openai()
            remote.replies = [FAULTS[fault]]
            bad = asyncio.create_task(client.chat.completions.create(model="m", messages=QUESTION))
            await remote.asked(1)
            good = await client.chat.completions.create(
                model="m:self-consistency", messages=QUESTION
            )
            with pytest.raises(openai.InternalServerError) as caught:
                await bad
            await server.idle()
    assert caught.value.status_code == 502
    assert caught.value.code == "engine_failed"
    assert good.dynasor["answer"] == "4"
    assert good.dynasor["failed"] == 0


async def test_a_sample_that_the_remote_fails_costs_its_query_one_sample():
    async with ScriptedServer(default=stream("\\boxed{4}")) as remote:
        remote.replies = [status(400, "no"), status(400, "no")]  # tried without the option as well
        engine = OpenAIEngine([remote.url], timeout=2, retries=0)
        async with running(engine) as server:
            answer = await server.openai().chat.completions.create(
                model="m:self-consistency",
                messages=QUESTION,
                extra_body={"dynasor": {"stop": {"rule": "fixed:16"}, "budget": {"samples": 4}}},
            )
    assert answer.dynasor["votes"] == {"4": 3}
    assert answer.dynasor["failed"] == 1
