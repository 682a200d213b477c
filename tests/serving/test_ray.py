"""`dynasor serve --replicas 2` as users start it: Ray Serve, the embedded model on real vLLM."""

import asyncio
import os
import signal

import openai
import psutil
import pytest

from benchmarks.endpoint_process import serving

QUESTION = (
    "Mia has 14 shells. She finds 8 more. She gives away 5. How many shells does Mia have now?"
)
MESSAGES = [{"role": "user", "content": QUESTION}]
SC = "embedded:self-consistency"
PLAN = {"stop": {"rule": "fixed:16"}, "budget": {"samples": 16}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("ray")
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("ray")
    slow_machine = {"RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
    with serving(folder / "log.txt", "--replicas", "2", environment=slow_machine) as server:
        yield server


@pytest.fixture
async def client(served):
    async with openai.AsyncOpenAI(
        base_url=served.url, api_key="none", max_retries=0, timeout=300
    ) as one:
        yield one


async def test_official_clients_are_answered_through_the_replicas(client):
    ask = {"messages": MESSAGES, "temperature": 0}
    plain = await client.chat.completions.create(model="embedded", **ask)
    stream = await client.chat.completions.create(model="embedded", **ask, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    thought = await client.chat.completions.create(model=SC, messages=MESSAGES)
    assert "boxed{17}" in plain.choices[0].message.content
    assert "".join(pieces) == plain.choices[0].message.content
    assert thought.dynasor["answer"] == "17"
    assert [model.id async for model in client.models.list()]


async def test_a_prompt_beyond_the_model_is_refused_with_its_length(client):
    long = [{"role": "user", "content": "shells and more shells " * 400}]
    for ask in ({"model": "embedded"}, {"model": SC}, {"model": "embedded", "stream": True}):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(messages=long, **ask)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param == "messages"


async def test_the_metrics_are_those_of_all_replicas(served, client):
    long = [{"role": "user", "content": QUESTION * 3}]  # more than a block of 32 tokens
    await client.chat.completions.create(model=SC, messages=long, extra_body={"dynasor": PLAN})
    now = served.metrics()
    assert 0 < now["dynasor_prefix_cache_share"] < 1
    assert now["dynasor_engine_ready"] == 1


async def all_answered(client, lose):
    """Twelve queries have all their samples, though something is lost at their work."""
    queries = [
        asyncio.create_task(
            client.chat.completions.create(
                model=SC, messages=MESSAGES, extra_body={"dynasor": PLAN}
            )
        )
        for _ in range(12)
    ]
    await asyncio.sleep(1.0)
    lose()
    prompts = set()
    for answer in await asyncio.gather(*queries):
        assert answer.dynasor["samples"] == 16
        assert answer.dynasor["failed"] == 0
        assert answer.dynasor["answer"] == "17"
        prompts.add(answer.usage.prompt_tokens)
    assert len(prompts) == 1  # nothing is billed twice


async def test_an_engine_that_dies_in_its_replica_costs_nobody_an_answer(served, client):
    before = {each.pid for each in served.engine_processes()}
    assert len(before) == 2
    await all_answered(client, psutil.Process(min(before)).kill)
    async with asyncio.timeout(300):  # Serve replaces the replica
        while len({each.pid for each in served.engine_processes()} - {min(before)}) < 2:
            await asyncio.sleep(0.5)


async def test_a_replica_that_is_killed_costs_nobody_an_answer(served, client):
    victim, _ = served.replicas()
    inside = victim.children(recursive=True)
    assert any("EngineCore" in child.name() for child in inside)
    await all_answered(client, victim.kill)
    assert not psutil.wait_procs(inside, timeout=60)[1]  # its engine does not outlive it


async def test_it_gives_what_it_has_and_ends_with_all_its_processes_when_told_to(served, client):
    """The last one: it ends the server."""
    processes = psutil.Process(served.process.pid).children(recursive=True)
    ask = {"model": SC, "messages": MESSAGES}
    plan = {"stop": {"rule": "fixed:64"}, "budget": {"samples": 64}, "wave": 1}
    asking = asyncio.create_task(
        client.chat.completions.create(**ask, extra_body={"dynasor": plan})
    )
    await asyncio.sleep(0.5)
    os.kill(served.process.pid, signal.SIGTERM)
    assert (await asking).dynasor["answer"] == "17"
    assert await asyncio.to_thread(served.process.wait, timeout=120) == 0
    assert not psutil.wait_procs(processes, timeout=60)[1]
