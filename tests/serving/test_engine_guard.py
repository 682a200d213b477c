"""Engines that die under their requests, and what becomes of these."""

import asyncio
from itertools import pairwise

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer

from algorithms.program import Generation, Progress, Request, Sampling
from dynasor.errors import EngineError
from serving.engine_guard import EngineGuard
from tests.serving.running_server import MODEL, QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine, boxed

SC = f"{MODEL}:self-consistency"


class Engines:
    """Builds one engine after the other."""

    def __init__(self, *engines):
        self.engines = list(engines)
        self.built = []

    def __call__(self):
        engine = self.engines.pop(0) if len(self.engines) > 1 else self.engines[0]
        self.built.append(engine)
        return engine


async def events(guard, **more):
    request = Request("r", "gang", "p", Sampling(max_tokens=9, **more.pop("sampling", {})), **more)
    return [event async for event in guard.submit(request)]


async def dies_after(engine, words):
    while not engine.running:
        await asyncio.sleep(0.005)
    await asyncio.sleep(engine.pause * words)
    engine.dead = True


async def test_a_lost_request_goes_on_where_its_client_was_told():
    first = ScriptedEngine(lambda _: "one two three four five", pause=0.1)
    second = ScriptedEngine(lambda _: "and on")
    guard = EngineGuard(Engines(first, second), NoOpTracer())
    await guard.start()
    death = asyncio.create_task(dies_after(first, 2.5))
    seen = await events(guard, report_every=1)
    await death
    await guard.close()
    (again,) = second.requests
    told = again.prefix
    assert told.startswith("one two ")
    assert again.sampling.max_tokens == 9 - len(told.split())
    assert isinstance(seen[-1], Generation)
    assert seen[-1].text == told + "and on"
    assert seen[-1].tokens == len(told.split()) + 2
    texts = [event.text for event in seen]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert guard.restarts == 1


async def test_a_lost_request_with_a_seed_is_drawn_again():
    first = ScriptedEngine(lambda _: "one two three four", pause=0.05)
    second = ScriptedEngine(lambda _: "one two three four")
    guard = EngineGuard(Engines(first, second), NoOpTracer())
    await guard.start()
    death = asyncio.create_task(dies_after(first, 2.5))
    seen = await events(guard, report_every=1, sampling={"seed": 3})
    await death
    await guard.close()
    assert second.requests[0].prefix == ""
    assert (seen[-1].text, seen[-1].tokens) == ("one two three four", 4)
    assert any(isinstance(event, Progress) for event in seen)


async def test_a_request_is_tried_no_more_than_twice():
    always = ScriptedEngine(dead=True)

    async def check():
        return None

    always.check = check  # looks well, and dies at each request
    guard = EngineGuard(lambda: always, NoOpTracer(), patience=5)
    await guard.start()
    (end,) = await events(guard)
    await guard.close()
    assert len(always.requests) == 2
    assert end.finish_reason == "error"
    assert "lost" in end.error


async def test_a_request_that_waits_for_an_engine_can_be_cut():
    class Slow(ScriptedEngine):
        async def start(self):
            await asyncio.sleep(60)

    guard = EngineGuard(Engines(ScriptedEngine(dead=True), Slow()), NoOpTracer())
    await guard.start()
    waiting = asyncio.create_task(events(guard))
    while guard.ready:
        await asyncio.sleep(0.01)
    await guard.abort(["r"])
    (end,) = await waiting
    await guard.close()
    assert end.finish_reason == "aborted"


async def test_an_engine_that_does_not_come_back_at_once_is_tried_again():
    class Broken(ScriptedEngine):
        async def start(self):
            raise EngineError("no memory")

    recovered = []
    engines = Engines(ScriptedEngine(dead=True), Broken(), ScriptedEngine())
    guard = EngineGuard(engines, NoOpTracer(), recovered=recovered.append)
    await guard.start()
    seen = await events(guard)
    await guard.close()
    assert seen[-1].finish_reason == "stop"
    assert guard.restarts == 1
    assert len(recovered) == 1
    assert recovered[0] > 0.5


async def test_finished_samples_outlive_the_engine():
    first = ScriptedEngine(lambda r: "\\boxed{4}" if r.index < 3 else None, pause=0.01)
    second = ScriptedEngine(boxed("4"))
    async with running(Engines(first, second)) as server:
        ask = {"wave": 2, "budget": {"samples": 6}, "stop": {"rule": "fixed:6"}}
        asking = asyncio.create_task(
            server.openai().chat.completions.create(
                model=SC, messages=QUESTION, extra_body={"dynasor": ask}
            )
        )
        while len(first.requests) < 5:
            await asyncio.sleep(0.01)
        first.dead = True
        answer = await asking
    assert answer.dynasor["votes"] == {"4": 6}
    assert answer.dynasor["failed"] == 0
    assert {request.index for request in second.requests} == {3, 4, 5}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_query_that_no_engine_is_there_for_gets_a_clear_503(stream):
    class Never(ScriptedEngine):
        async def start(self):
            raise EngineError("gone for good")

    first = ScriptedEngine(lambda _: None)
    async with running(Engines(first, Never())) as server:
        server.service.guard._patience = 0.3
        client = server.openai()

        async def ask():
            answer = await client.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=stream
            )
            if stream:
                async for _ in answer:
                    pass

        asking = asyncio.create_task(ask())
        while not first.running:
            await asyncio.sleep(0.01)
        first.dead = True
        with pytest.raises(openai.APIError, match="lost"):
            await asking
        async with server.http() as http:
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/healthz")).status_code == 200
            body = {"model": MODEL, "messages": QUESTION}
            refused = await http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1


async def test_each_request_is_a_span_within_its_querys():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    async with running(ScriptedEngine(boxed("4"))) as server:
        server.service._tracer = server.service.guard._tracer = tracer
        for _ in range(2):
            await server.openai().chat.completions.create(model=SC, messages=QUESTION)
    spans = exporter.get_finished_spans()
    queries = {span.context.span_id: span for span in spans if span.name == "query"}
    requests = [span for span in spans if span.name == "request"]
    assert len(queries) == 2
    assert len(requests) == sum(span.attributes["samples"] for span in queries.values())
    for span in requests:
        assert queries[span.parent.span_id].attributes["query"] == span.attributes["gang"]
        assert span.attributes["finish_reason"] == "stop"
