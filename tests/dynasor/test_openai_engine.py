"""The OpenAI engine against vLLM's own server, and against servers that misbehave on order."""

import asyncio
import json
import re
import urllib.request
from contextlib import asynccontextmanager

import pytest

from algorithms.program import Generation, Progress, Request, Sampling
from certaindex.answers import extract
from dynasor.engines.openai import OpenAIEngine
from dynasor.errors import EngineError


def request(name, question="hi", program="q", **more):
    sampling = Sampling(**{"max_tokens": 400, **more.pop("sampling", {})})
    return Request(name, program, ({"role": "user", "content": question},), sampling, **more)


@asynccontextmanager
async def started(*urls, **more):
    engine = OpenAIEngine(urls, **{"timeout": 20.0, "retries": 1, **more})
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def run(engine, asked):
    return [event async for event in engine.submit(asked)][-1]


async def test_samples_of_the_real_server(vllm_server, easy_rows):
    async with started(vllm_server) as engine:
        assert engine.capacity().model == "embedded"
        done = await asyncio.gather(
            *(run(engine, request(f"s{i}", row["question"])) for i, row in enumerate(easy_rows[:8]))
        )
    assert {sample.finish_reason for sample in done} == {"stop"}
    assert all(5 < sample.tokens < 200 and sample.prompt_tokens > 10 for sample in done)
    assert all(extract(sample.text, "boxed") for sample in done)


async def test_text_prompts_prefixes_and_confidence(vllm_server, easy_rows):
    question = easy_rows[0]["question"]
    async with started(vllm_server) as engine:
        text = Request("t", "q", f"<|user|>{question}<|assistant|>", Sampling(max_tokens=200))
        assert extract((await run(engine, text)).text, "boxed")
        begun = request("p", question, prefix="The answer is \\boxed{")
        assert "boxed" not in (await run(engine, begun)).text
        sure = await run(engine, request("c", question, sampling={"top_logprobs": 5}))
        assert len(sure.confidence) >= sure.tokens - 1
        assert all(value > 0 for value in sure.confidence)


def running_on(server):
    with urllib.request.urlopen(server.removesuffix("/v1") + "/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{"))
    )


async def test_abort_stops_the_server_from_generating(vllm_server):
    async with started(vllm_server) as engine:

        async def watch(name):
            asked = request(
                name, "zq", sampling={"temperature": 2.0, "max_tokens": 990}, report_every=2
            )
            async for event in engine.submit(asked):
                if isinstance(event, Progress):
                    await engine.abort([name])
            return event

        ends = await asyncio.gather(*(watch(f"long{i}") for i in range(12)))
        cut = [end for end in ends if end.finish_reason == "aborted"]
        assert cut
        assert all(0 < end.tokens < 990 for end in cut)
        for _ in range(200):
            if await asyncio.to_thread(running_on, vllm_server) == 0:
                break
            await asyncio.sleep(0.1)
        assert await asyncio.to_thread(running_on, vllm_server) == 0


async def test_a_model_that_the_server_lacks_is_named(vllm_server):
    with pytest.raises(EngineError, match=r"no model 'other'; it has embedded"):
        async with started(vllm_server, model="other"):
            pass


async def test_no_server_at_all():
    with pytest.raises(
        EngineError, match=r"no server answers \(http://127.0.0.1:9/v1: .*--base-url"
    ):
        async with started("http://127.0.0.1:9/v1", retries=0):
            pass


def chunk(text, finish=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return f"data: {json.dumps(body | {'choices': [choice]})}\n\n".encode()


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
GOOD = STREAM + chunk("so \\boxed{4}") + chunk("", "stop") + b"data: [DONE]\n\n"
MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()


class Scripted:
    """A server that answers completions by a script, one entry a request; the last one repeats."""

    def __init__(self, *script):
        self.script = list(script)
        self.asked = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = [
            int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if b"content-length" in x
        ]
        body = await reader.readexactly(length[0]) if length else b""
        if b"/models" in head:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            )
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
        else:
            self.asked.append(json.loads(body))
            answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            writer.write(answer if isinstance(answer, bytes) else answer(self.asked[-1]))
            if answer is STALL:
                await writer.drain()
                await asyncio.sleep(5)
        await writer.drain()
        writer.close()


def failing(status, body="broken", head=""):
    return (
        f"HTTP/1.1 {status} No\r\nconnection: close\r\n{head}content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


STALL = STREAM + chunk("thinking")


@pytest.mark.parametrize(
    "first", [failing(500), failing(429, head="retry-after: 0\r\n"), failing(503)]
)
async def test_a_passing_failure_is_tried_again(first):
    async with Scripted(first, GOOD) as server, started(server.url) as engine:
        done = await run(engine, request("a"))
    assert (done.finish_reason, done.text) == ("stop", "so \\boxed{4}")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failing(500), "500|broken"),
        (failing(400, '{"error": {"message": "no such thing"}}'), "no such thing"),
        (STREAM + b"data: {rubbish\n\n", "."),
        (STREAM + b'data: {"foo": 1}\n\ndata: [DONE]\n\n', "something else|finish reason"),
        (STREAM + chunk("half"), "without a finish reason"),
        (b"rubbish\r\n\r\n", "."),
    ],
)
async def test_a_lasting_failure_ends_in_an_error_of_that_request_alone(answer, message):
    async with Scripted(answer) as server, started(server.url, retries=0) as engine:
        done = await run(engine, request("a"))
        assert isinstance(done, Generation)
        assert done.finish_reason == "error"
        assert re.search(message, done.error)
        server.script = [GOOD]
        assert (await run(engine, request("b"))).finish_reason == "stop"


async def test_a_silent_server_is_given_up():
    async with Scripted(STALL) as server, started(server.url, timeout=0.3, retries=0) as engine:
        done = await run(engine, request("a"))
    assert done.finish_reason == "error"
    assert (done.text, done.tokens) == ("thinking", 1)


async def test_an_option_that_the_server_refuses_is_not_sent_again():
    def picky(body):
        if "continuous_usage_stats" in body["stream_options"]:
            return failing(400, '{"error": {"message": "unknown field continuous_usage_stats"}}')
        return GOOD

    async with Scripted(picky) as server, started(server.url) as engine:
        for name in "ab":
            assert (await run(engine, request(name))).finish_reason == "stop"
    assert len(server.asked) == 3


async def test_a_program_stays_on_its_server_and_moves_when_it_dies():
    async with Scripted(GOOD) as one, Scripted(GOOD) as two:
        async with started(one.url, two.url, retries=0) as engine:
            for index in range(4):
                await run(engine, request(f"a{index}", program="a"))
            assert sorted((len(one.asked), len(two.asked))) == [0, 4]
            home, other = (one, two) if one.asked else (two, one)
            home._server.close()
            moved = [await run(engine, request(f"a{4 + i}", program="a")) for i in range(3)]
            assert {end.finish_reason for end in moved} == {"stop"}
            assert len(other.asked) == 3


async def test_the_key_is_sent_and_never_shown():
    async with Scripted(failing(401, "bad key")) as server:
        async with started(server.url, api_key="sk-secret", retries=0) as engine:
            done = await run(engine, request("a"))
            assert "sk-secret" not in (done.error or "") + repr(engine.__dict__)
