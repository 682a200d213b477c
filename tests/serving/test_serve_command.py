"""`dynasor serve` as users start it: a process, the embedded model on real vLLM, official clients."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import psutil
import pytest

from benchmarks.endpoint_process import Served, serving

QUESTION = (
    "Mia has 14 shells. She finds 8 more. She gives away 5. How many shells does Mia have now?"
)
MESSAGES = [{"role": "user", "content": QUESTION}]
SC = "embedded:self-consistency"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("serve")
    config = folder / "dynasor.toml"
    config.write_text("[server]\nslo = 5\ndrain = 20\n[server.effort.low]\nsamples = 6\n")
    with serving(folder / "log.txt", "--config", str(config)) as server:
        server.config = config
        yield server


@pytest.fixture
def client(served: Served):
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as one:
        yield one


def test_plain_streamed_and_reasoned_answers_of_the_real_model(client):
    plain = client.chat.completions.create(model="embedded", messages=MESSAGES, temperature=0)
    stream = client.chat.completions.create(
        model="embedded", messages=MESSAGES, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    thought = client.chat.completions.create(model=SC, messages=MESSAGES)
    assert "boxed{17}" in plain.choices[0].message.content
    assert "".join(pieces) == plain.choices[0].message.content
    assert sum(1 for piece in pieces if piece) > 5
    assert thought.dynasor["answer"] == "17"
    assert thought.dynasor["stopped"] == "certain"
    assert thought.dynasor["samples"] < 16
    assert thought.usage.prompt_tokens > plain.usage.prompt_tokens


@pytest.mark.parametrize("algorithm", ["dynasor-cot", "deepconf", "short-m-of-k"])
def test_programs_run_on_the_real_engine_and_their_bills_add_up(client, algorithm):
    answer = client.chat.completions.create(
        model=f"embedded:{algorithm}", messages=MESSAGES, reasoning_effort="low", seed=1
    )
    tokens = answer.dynasor["tokens"]
    spent = sum(tokens[kind] for kind in ("answer", "other_samples", "probes", "cut"))
    assert answer.dynasor["answer"] == "17"
    assert answer.usage.completion_tokens == spent
    assert tokens["answer"] > 0
    assert "17" in answer.choices[0].message.content


def test_the_same_seed_gives_the_same_answers(client):
    ask = {"messages": MESSAGES, "seed": 5, "model": "embedded", "n": 3}
    texts = [
        [choice.message.content for choice in client.chat.completions.create(**ask).choices]
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    with pytest.raises(openai.BadRequestError, match="seed"):
        client.chat.completions.create(**ask, top_p=0.5)


def test_log_probabilities_are_the_models(client):
    ask = {"model": "embedded", "messages": MESSAGES, "temperature": 0, "logprobs": True}
    answer = client.chat.completions.create(**ask, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    text = "".join(token.token for token in tokens)
    assert answer.choices[0].message.content in text
    for token in tokens:
        first, second = token.top_logprobs
        assert token.logprob == first.logprob >= second.logprob  # greedy takes the likeliest


def test_a_prompt_beyond_the_model_is_refused_with_its_length(client):
    long = [{"role": "user", "content": "shells and more shells " * 400}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="embedded", messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


def test_a_hangup_reads_the_configuration_anew(served, client):
    ask = {"model": "embedded", "messages": MESSAGES, "reasoning_effort": "low"}
    assert client.chat.completions.create(**ask).dynasor["budget"] == 6
    served.config.write_text("[server.effort.low]\nsamples = 7\n")
    os.kill(served.process.pid, signal.SIGHUP)
    wait_for(lambda: client.chat.completions.create(**ask).dynasor["budget"] == 7)
    served.config.write_text("[server]\nslo = 'soon'\n")
    os.kill(served.process.pid, signal.SIGHUP)
    wait_for(lambda: any("stays as it was" in str(line["message"]) for line in served.lines()))
    assert client.chat.completions.create(**ask).dynasor["budget"] == 7


async def test_the_engine_is_killed_under_load_and_comes_back(served):
    async with openai.AsyncOpenAI(
        base_url=served.url, api_key="none", max_retries=0, timeout=300
    ) as client:

        async def ask(number):
            body = {"stop": {"rule": "fixed:6"}, "budget": {"samples": 6}, "wave": 2}
            try:
                return await client.chat.completions.create(
                    model=SC, messages=MESSAGES, extra_body={"dynasor": body}
                )
            except openai.APIStatusError as error:
                return error.status_code

        asking = [asyncio.create_task(ask(number)) for number in range(12)]
        while served.metrics()["dynasor_requests_running"] < 8 and not asking[0].done():
            await asyncio.sleep(0.01)
        (engine,) = served.engine_processes()
        engine.kill()
        ends = await asyncio.gather(*asking)
        assert all(end == 503 or end.dynasor["samples"] == 6 for end in ends)
        await asyncio.to_thread(wait_for, lambda: ready(served), 300)
        again = await ask(0)
        assert again.dynasor["answer"] == "17"
    seen = served.metrics()
    assert seen["dynasor_engine_restarts_total"] == 1
    assert (seen["dynasor_gangs_running"], seen["dynasor_requests_running"]) == (0, 0)


def test_a_terminated_server_gives_what_it_has_and_leaves_nothing(served, client):
    """The last one: it ends the server."""
    children = psutil.Process(served.process.pid).children(recursive=True)
    ask = {"model": "embedded", "messages": MESSAGES}
    stream = client.chat.completions.create(**ask, stream=True, n=4)
    next(iter(stream))
    os.kill(served.process.pid, signal.SIGTERM)
    ends = [
        choice.finish_reason for chunk in stream for choice in chunk.choices if choice.finish_reason
    ]
    assert len(ends) == 4
    assert served.process.wait(timeout=60) == 0
    wait_for(lambda: not any(child.is_running() for child in children))


def test_what_cannot_be_served_is_one_line_before_a_model_is_loaded():
    environment = {**os.environ, "DYNASOR_SERVER__HOST": "0.0.0.0"}
    command = [sys.executable, "-m", "dynasor.cli", "serve"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "allow_public_without_keys" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_one_line_before_a_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "dynasor.cli", "serve", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "cannot listen" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_key_is_shown_once_and_its_hash_kept():
    command = [sys.executable, "-m", "dynasor.cli", "key", "alice"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    secret = made.stderr.split()[-1]
    assert secret.startswith("dyn-")
    assert secret not in made.stdout
    assert 'name = "alice"' in made.stdout


def ready(served):
    return httpx.get(f"{served.root}/readyz").status_code == 200


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
