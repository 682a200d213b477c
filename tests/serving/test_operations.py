"""Health, metrics, the live page's pictures, new configurations, the end of the server."""

import asyncio
import json

from prometheus_client.parser import text_string_to_metric_families

from dynasor.config import RankingConfig
from serving.app import reconfigure
from serving.keys import Keys
from tests.serving.running_server import MODEL, QUESTION, running, settings
from tests.serving.scripted_engine import ScriptedEngine, boxed

SC = f"{MODEL}:self-consistency"


async def metrics_of(http):
    text = (await http.get("/metrics")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_was_served():
    async with running(ScriptedEngine(boxed("4"))) as server, server.http() as http:
        client = server.openai()
        for model in (MODEL, SC, SC):
            await client.chat.completions.create(model=model, messages=QUESTION)
        await http.get("/nothing")
        seen = await metrics_of(http)
    assert seen["dynasor_queries_total", "self-consistency", "certain"] == 2
    assert seen["dynasor_queries_total", "none", "complete"] == 1
    assert seen["dynasor_query_samples_sum", "self-consistency"] >= 4
    assert seen["dynasor_tokens_total", "answer"] == 12
    assert seen["dynasor_tokens_saved_total",] > 0
    assert seen["dynasor_certainty_count", "self-consistency"] == 2
    assert seen["dynasor_http_responses_total", "404"] == 1
    assert seen["dynasor_slo_attainment",] == 1
    assert seen["dynasor_gangs_running",] == 0
    for name in ("query", "first_token", "answer"):
        assert seen[f"dynasor_{name}_seconds_count", "none"] == 1 or name == "first_token"
    for name in ("requests_waiting", "starvation_seconds", "engine_ready", "kv_cache_share"):
        assert (f"dynasor_{name}",) in seen


async def test_a_ranked_request_tells_the_scheduler_its_place_and_the_metrics_its_wait():
    config = settings().model_copy(update={"ranking": RankingConfig(model="cheap", deadline=5.0)})
    engine = ScriptedEngine(boxed("4"))
    async with running(engine, config=config) as server, server.http() as http:
        for question in ("Say hello.", "Write an essay of two thousand words on the tides."):
            asked = [{"role": "user", "content": question}]
            await server.openai().chat.completions.create(model=MODEL, messages=asked)
        seen = await metrics_of(http)
    assert seen["dynasor_rank_seconds_count",] == 2
    short, long = engine.hints.values()
    assert short.rank < long.rank
    assert short.tokens < long.tokens


async def test_late_answers_lower_the_attainment():
    config = settings(slo=0.001)
    async with running(ScriptedEngine(boxed(), pause=0.01), config=config) as server:
        await server.openai().chat.completions.create(model=SC, messages=QUESTION)
        async with server.http() as http:
            assert (await metrics_of(http))["dynasor_slo_attainment",] == 0


async def test_the_pages_pictures_show_queries_at_work_and_after():
    engine = ScriptedEngine(lambda r: "\\boxed{<b>7</b>}" if r.index < 3 else None)
    async with running(engine) as server, server.http() as http:
        ask = {"wave": 1, "budget": {"samples": 9}, "stop": {"rule": "fixed:9"}}
        asking = asyncio.create_task(
            server.openai().chat.completions.create(
                model=SC, messages=QUESTION, extra_body={"dynasor": ask}
            )
        )
        async with http.stream("GET", "/events") as response:
            async for line in response.aiter_lines():
                if not line:
                    continue
                picture = json.loads(line.removeprefix("data: "))
                if picture["queries"] and picture["queries"][0]["samples"] == 3:
                    break
        (query,) = picture["queries"]
        assert query["running"]
        assert query["votes"] == {"<b>7</b>": 3}
        assert query["curve"] == [0, 1, 1]
        assert (query["in_flight"], query["budget"]) == (1, 9)
        assert picture["gangs"] == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await server.idle()
        assert not server.service.live
        assert not server.service.ended[0].as_shown()["running"]


async def test_a_new_configuration_counts_for_the_queries_to_come():
    engine = ScriptedEngine(boxed("4"), pause=0.02)
    async with running(engine) as server:
        client = server.openai()
        asking = asyncio.create_task(
            client.chat.completions.create(
                model=MODEL,
                messages=QUESTION,
                reasoning_effort="low",
                extra_body={"dynasor": {"stop": {"rule": "fixed:8"}}},
            )
        )
        while not engine.running:
            await asyncio.sleep(0.01)
        new = settings(effort={"low": {"samples": 3, "rule": "fixed:3"}}, slo=1.0, port=9)
        assert reconfigure(server.app, server.door, new, Keys([])) == ["server.port"]
        second = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, reasoning_effort="low"
        )
        first = await asking
    assert (first.dynasor["samples"], first.dynasor["budget"]) == (8, 8)
    assert (second.dynasor["samples"], second.dynasor["budget"]) == (3, 3)
    assert server.app.state.metrics.slo == 1.0


async def test_a_server_that_ends_takes_no_queries_and_gives_best_answers():
    engine = ScriptedEngine(lambda r: "\\boxed{5}" if r.index == 0 else None)
    async with running(engine) as server, server.http() as http:
        asking = asyncio.create_task(
            server.openai().chat.completions.create(model=SC, messages=QUESTION)
        )
        while len(engine.requests) < 2:
            await asyncio.sleep(0.01)
        server.door.draining = server.app.state.draining = True
        assert (await http.get("/readyz")).status_code == 503
        body = {"model": MODEL, "messages": QUESTION}
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 503
        server.service.conclude()
        answer = await asking
        await server.idle()
    assert answer.dynasor["answer"] == "5"
    assert answer.dynasor["best_so_far"]
    assert not engine.running
