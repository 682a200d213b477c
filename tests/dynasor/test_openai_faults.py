"""The engine for OpenAI-compatible servers, against servers that fail in every way."""

import asyncio
import logging

import pytest

from algorithms.program import Progress
from dynasor.engines import openai_stream
from dynasor.engines.openai import OpenAIEngine
from dynasor.errors import EngineError
from tests.dynasor.openai_requests import ask, end_of
from tests.scripted_server import (
    ScriptedServer,
    chunk,
    drop,
    events,
    stall,
    status,
    stream,
    usage,
)

KEY = "sk-very-secret"


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def engine(server):
    engine = OpenAIEngine([server.url], api_key=KEY, retries=1, timeout=20)
    await engine.start()
    yield engine
    await engine.close()


# Servers that fail.


@pytest.mark.parametrize("fault", [status(500), status(429, Retry_After="0.1"), drop])
async def test_a_passing_fault_is_tried_again(server, engine, fault):
    server.replies = [fault]
    end = await end_of(engine)
    assert (end.finish_reason, end.text, end.tokens) == ("stop", "four words in all", 4)
    assert len(server.exchanges) == 2


@pytest.mark.parametrize("code", [500, 429])
async def test_a_lasting_fault_fails_the_request_after_the_retries(server, engine, code):
    server.default = status(code, "two\nlines")
    end = await end_of(engine)
    assert end.finish_reason == "error"
    assert server.url in end.error
    assert str(code) in end.error
    assert "\n" not in end.error
    assert len(server.exchanges) == 2


async def test_the_key_is_sent_and_never_shown(server, engine, caplog):
    caplog.set_level(logging.DEBUG)
    server.default = status(401, f"the key {KEY} is wrong")
    end = await end_of(engine)
    assert server.exchanges[0].headers["authorization"] == f"bearer {KEY}"
    assert "401" in end.error
    assert "key *** is wrong" in end.error
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dynasor")]
    assert KEY not in " ".join([repr(engine), repr(vars(engine)["_servers"]), *ours])


GARBAGE = {
    "no JSON": "{not json",
    "a list": [],
    "a text": '"text"',
    "null": "null",
    "no choices": {"usage": None},
    "choices no list": {"choices": 5},
    "choice no object": {"choices": [1]},
    "no delta": {"choices": [{"index": 0}]},
    "text no text": chunk(5),
    "count no number": usage("many"),
    "count below 0": usage(-1),
    "no prompt count": usage(1, None),
    "logprobs no numbers": chunk("x", logprobs={"content": [{"top_logprobs": [{"logprob": "a"}]}]}),
    "logprobs a number": chunk("x", logprobs=7),
    "an error": {"error": {"message": "out of memory"}},
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_fails_its_own_request_only(server, engine, content):
    server.replies = [events(chunk("so far"), content)]
    bad = await end_of(engine, ask(top_logprobs=2))
    assert bad.finish_reason == "error"
    assert (bad.text or "").startswith("so far")
    assert (await end_of(engine)).finish_reason == "stop"


async def test_a_likelihood_that_is_no_number_fails_its_own_request_only(server, engine):
    odd = chunk("x", logprobs={"content": [{"logprob": "a", "top_logprobs": []}]})
    server.replies = [events(chunk("so far"), odd)]
    assert (await end_of(engine, ask(logprobs=True))).finish_reason == "error"
    sound = {"content": [{"logprob": -0.5, "top_logprobs": []}] * 2}
    server.replies = [events(chunk("xy", "stop", logprobs=sound))]
    assert (await end_of(engine, ask(logprobs=True))).logprobs == [-0.5, -0.5]


async def test_bytes_that_are_no_text_fail_the_request(server, engine):
    async def reply(exchange):
        await exchange.head()
        await exchange.send(b"data: \xff\xfe\n\n")

    server.replies = [reply]
    end = await end_of(engine)
    assert end.finish_reason == "error"
    assert "cannot be read" in end.error


async def test_a_server_that_falls_silent_is_left(server):
    engine = OpenAIEngine([server.url], model="m", timeout=0.5, retries=0)

    async def pings(exchange):
        await exchange.head()
        while not exchange.reader.at_eof():
            await exchange.send(b": still here\n\n")
            await asyncio.sleep(0.05)

    server.replies = [stall("a", "b"), pings]
    end = await end_of(engine)
    assert (end.finish_reason, end.text, end.tokens) == ("error", "ab", 2)
    assert "silent for 0.5 s" in end.error
    await server.hung_up.wait()
    assert "silent" in (await end_of(engine)).error
    await engine.close()


async def test_an_output_without_end_is_cut_off(server, engine, monkeypatch):
    monkeypatch.setattr(openai_stream, "LARGEST_OUTPUT", 100)

    async def flood(exchange):
        await exchange.head()
        while True:
            await exchange.event(chunk("x" * 30))

    server.replies = [flood]
    end = await end_of(engine)
    assert end.finish_reason == "error"
    assert "more than 100 characters" in end.error
    assert len(end.text) == 90


async def test_a_connection_that_breaks_keeps_the_text_so_far(server, engine):
    server.replies = [events(chunk("half"))]
    end = await end_of(engine)
    assert (end.finish_reason, end.text) == ("error", "half")
    assert "without a finish reason" in end.error
    server.replies = [events(chunk("whole", "length"))]  # neither usage nor [DONE]
    end = await end_of(engine)
    assert (end.finish_reason, end.text, end.tokens, end.error) == ("length", "whole", 1, None)
    server.replies = [events(chunk("bad", "content_filter"), usage(1), "[DONE]")]
    assert "content_filter" in (await end_of(engine)).error


# Start.


async def test_no_server_at_the_start_says_what_to_do(dead_url):
    engine = OpenAIEngine([dead_url], retries=0)
    with pytest.raises(EngineError, match=r"no server answers \(http://127.*--base-url") as caught:
        await engine.start()
    assert "Connection error" in str(caught.value)
    await engine.close()


async def test_a_server_that_is_something_else_cannot_be_started():
    async with ScriptedServer(models=None) as server:
        engine = OpenAIEngine([server.url], retries=0)
        for reply in (status(404), events("<html>"), drop):
            server.default = reply
            with pytest.raises(EngineError, match="no server answers"):
                await engine.start()
        await engine.close()


async def test_a_model_that_one_server_lacks_is_an_error(server):
    async with ScriptedServer(models=["other"]) as second:
        engine = OpenAIEngine([server.url, second.url])
        with pytest.raises(EngineError, match=f"{second.url} has no model 'm'; it has other"):
            await engine.start()
        await engine.close()
        second.models = []
        engine = OpenAIEngine([second.url])
        with pytest.raises(EngineError, match="name one with --model"):
            await engine.start()
        await engine.close()


# Cutting.


@pytest.mark.parametrize("reply", [stall("a"), stall(), status(429, Retry_After="100")])
async def test_a_cut_ends_at_once_whatever_the_server_does(server, engine, reply):
    server.default = reply
    ending = asyncio.create_task(end_of(engine))
    await server.asked(1)
    await asyncio.sleep(0.2)  # mostly enough for the engine to read what there is
    await engine.abort(["q#0", "unknown"])
    await engine.abort(["q#0"])
    end = await ending
    assert (end.finish_reason, end.error) == ("aborted", None)


async def test_a_cut_request_that_waits_for_its_turn_is_never_sent(server):
    engine = OpenAIEngine([server.url], model="m", max_running=2)
    server.default = stall()
    endings = [asyncio.create_task(end_of(engine, ask(f"q#{n}"))) for n in range(5)]
    await server.asked(2)
    await engine.abort(["q#3", "q#4"])
    assert (await endings[4]).finish_reason == "aborted"
    server.default = stream("x")
    await engine.abort(["q#0", "q#1"])
    assert [(await ending).finish_reason for ending in endings] == 2 * ["aborted"] + ["stop"] + (
        2 * ["aborted"]
    )
    assert len(server.exchanges) == 3
    await engine.close()


async def test_no_more_run_than_asked_for(server):
    engine = OpenAIEngine([server.url], model="m", max_running=3)
    three = asyncio.Barrier(3)

    async def wait_for_the_others(exchange):
        await three.wait()
        await stream("x")(exchange)

    server.default = wait_for_the_others
    await asyncio.gather(*(end_of(engine, ask(f"q#{n}")) for n in range(12)))
    assert (server.most_at_once, len(server.exchanges)) == (3, 12)
    await engine.close()


async def test_a_reader_that_leaves_closes_the_stream(server, engine):
    server.default = stall("a", "b")
    reading = engine.submit(ask(report_every=1))
    assert isinstance(await anext(reading), Progress)
    await reading.aclose()
    await server.hung_up.wait()

    server.hung_up.clear()
    task = asyncio.create_task(end_of(engine))
    await server.asked(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await server.hung_up.wait()


# What is sent, and what is read.


async def test_a_server_that_refuses_the_extra_option_is_asked_without_it(server, engine):
    async def old_server(exchange):
        strange = "continuous_usage_stats" in exchange.body["stream_options"]
        reply = status(400, "extra fields") if strange else events(chunk("a"), chunk("b", "stop"))
        await reply(exchange)

    server.default = old_server
    for _ in range(2):
        end = await end_of(engine, ask(report_every=1))
        assert (end.finish_reason, end.tokens) == ("stop", 2)
    options = [list(body["stream_options"]) for body in server.bodies]
    assert options == [["include_usage", "continuous_usage_stats"]] + 2 * [["include_usage"]]


async def test_a_request_that_is_wrong_itself_does_not_cost_the_option(server, engine):
    server.replies = [status(400, "bad temperature"), status(400, "bad temperature")]
    assert "bad temperature" in (await end_of(engine)).error
    await end_of(engine)
    assert server.bodies[-1]["stream_options"]["continuous_usage_stats"] is True


async def test_sampling_and_prefix_are_sent_as_either_endpoint_wants_them(server, engine):
    sampling = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "stop": ("x",), "seed": 3}
    await end_of(engine, ask(prefix="so", top_logprobs=2, **sampling))
    await end_of(engine, ask(prompt="1 + 1", prefix=" =", top_logprobs=2, **sampling))
    chat, text = server.bodies
    for body in (chat, text):
        assert body["model"] == "m"
        assert {name: body[name] for name in sampling} == {**sampling, "stop": ["x"]}
    assert chat["messages"][-1] == {"role": "assistant", "content": "so"}
    assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 2)
    assert (text["prompt"], text["logprobs"]) == ("1 + 1 =", 2)
    assert [e.path for e in server.exchanges] == ["/v1/chat/completions", "/v1/completions"]


async def test_confidence_is_the_negative_mean_of_the_largest(server, engine):
    values = [{"token": "t", "logprob": -v, "top_logprobs": []} for v in (3.0, 1.0, 2.0)]
    token = {"token": "t", "logprob": -1.0, "top_logprobs": values}
    server.replies = [events(chunk("a", "stop", logprobs={"content": [token, token]}))]
    assert (await end_of(engine, ask(top_logprobs=2))).confidence == [1.5, 1.5]
    table = {"a": -3.0, "b": -1.0, "c": -2.0}
    choice = {
        "index": 0,
        "text": "a",
        "finish_reason": "stop",
        "logprobs": {"top_logprobs": [table]},
    }
    server.replies = [events({"choices": [choice]})]
    assert (await end_of(engine, ask(prompt="x", top_logprobs=2))).confidence == [1.5]


async def test_usage_wins_over_the_count_of_chunks(server, engine):
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    server.replies = [events(chunk("two tokens", "stop"), usage(2, 9, **details), "[DONE]")]
    end = await end_of(engine)
    assert (end.tokens, end.prompt_tokens, end.cached_tokens) == (2, 9, 4)
    counted = [{**chunk(t), "usage": usage(n)["usage"]} for n, t in [(3, "a"), (5, "b"), (9, "c")]]
    server.replies = [events(*counted, chunk(finish="length"), "[DONE]")]
    *progress, end = [event async for event in engine.submit(ask(report_every=4))]
    assert [event.tokens for event in progress] == [5, 9]
    assert (end.tokens, end.finish_reason) == (9, "length")
