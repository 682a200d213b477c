"""Who may ask, and how much; what a server does to those who ask too much, too slowly or not at all."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import openai
import pytest

from serving.keys import Key, Keys, hash_of
from serving.logs import JsonFormatter
from tests.serving.running_server import MODEL, QUESTION, running, settings
from tests.serving.scripted_engine import ScriptedEngine

ALICE, ROOT = "alice-has-a-long-key", "root-has-a-longer-key"
BODY = {"model": MODEL, "messages": QUESTION}


def keys(**limits):
    return Keys(
        [
            Key(name="alice", sha256=hash_of(ALICE), **limits),
            Key(name="root", sha256=hash_of(ROOT), admin=True),
        ]
    )


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


@asynccontextmanager
async def busy(engine=None, **more):
    """A server whose answers never end by themselves."""
    engine = engine or ScriptedEngine(lambda request: None)
    async with running(engine, **more) as server:
        yield server, engine


async def test_without_a_key_with_a_wrong_one_and_with_the_right_one():
    async with running(ScriptedEngine(), keys()) as server, server.http() as http:
        for headers in ({}, bearer("x" * 20), {"Authorization": "Basic !!"}):
            response = await http.post("/v1/chat/completions", json=BODY, headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["type"] == "authentication_error"
        assert (await http.get("/v1/models", headers=bearer(ALICE))).status_code == 200
        with pytest.raises(openai.AuthenticationError):
            await server.openai("wrong-wrong-wrong").models.list()


async def test_the_page_and_the_metrics_are_for_admins():
    async with running(ScriptedEngine(), keys()) as server, server.http() as http:
        for path in ("/", "/events", "/metrics", "/slo"):
            assert (await http.get(path)).status_code == 401
            assert (await http.get(path, headers=bearer(ALICE))).status_code == 403
        assert (await http.get("/metrics", headers=bearer(ROOT))).status_code == 200
        assert (await http.get("/", auth=("whoever", ROOT))).status_code == 200
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).status_code == 200


async def test_queries_at_once_are_limited_for_each_key():
    async with busy(keys=keys(concurrent=1)) as (server, engine), server.http() as http:
        server.admin = ROOT
        first = asyncio.create_task(
            http.post("/v1/chat/completions", json=BODY, headers=bearer(ALICE))
        )
        while not engine.running:
            await asyncio.sleep(0.01)
        second = await http.post("/v1/chat/completions", json=BODY, headers=bearer(ALICE))
        assert second.status_code == 429
        assert int(second.headers["retry-after"]) >= 1
        assert (await http.get("/v1/models", headers=bearer(ALICE))).status_code == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await server.idle()
        third = {**BODY, "dynasor": {"deadline_ms": 50}}
        again = await http.post("/v1/chat/completions", json=third, headers=bearer(ALICE))
        assert again.status_code == 200


@pytest.mark.parametrize("limit", [{"requests_per_minute": 2}, {"tokens_per_minute": 20}])
async def test_requests_and_tokens_a_minute_are_limited_for_each_key(limit):
    async with running(ScriptedEngine(), keys(**limit)) as server, server.http() as http:
        answers = [
            await http.post("/v1/chat/completions", json=BODY, headers=bearer(ALICE))
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 60
        other = await http.post("/v1/chat/completions", json=BODY, headers=bearer(ROOT))
        assert other.status_code == 200


async def test_a_priority_above_the_keys_is_refused():
    async with running(ScriptedEngine(), keys(max_priority=1)) as server:
        client = server.openai(ALICE)
        ask = {"model": MODEL, "messages": QUESTION}
        await client.chat.completions.create(**ask, extra_body={"dynasor": {"priority": 1}})
        with pytest.raises(openai.PermissionDeniedError, match="priority"):
            await client.chat.completions.create(**ask, extra_body={"dynasor": {"priority": 2}})


async def test_each_step_of_priority_doubles_the_weight_in_the_schedulers_order():
    engine = ScriptedEngine()
    async with running(engine) as server:
        client = server.openai()
        for priority in (0, 3):
            await client.chat.completions.create(
                **BODY, extra_body={"dynasor": {"priority": priority, "algorithm": "none"}}
            )
    usual, urgent = engine.hints.values()
    assert (usual.weight, urgent.weight) == (None, 8)


async def test_rules_that_clients_bring_are_not_played_on(monkeypatch):
    played = []

    def play(rule, standing, samples):
        played.append(rule)
        return 1.0

    monkeypatch.setattr("dynasor.scheduling.further_samples.samples_to_come", play)
    engine = ScriptedEngine(pause=0.01)
    async with running(engine) as server:
        client = server.openai()
        ask = {"model": f"{MODEL}:self-consistency", "messages": QUESTION}
        theirs = {"dynasor": {"stop": {"rule": "certaindex:0.123"}}}
        await client.chat.completions.create(**ask, extra_body=theirs)
        assert not played
        # Though certain already: the rest of the full budget of 16 samples of 4 tokens.
        assert next(iter(engine.hints.values())).tokens >= 12 * 4
        await client.chat.completions.create(**ask)
        assert played


async def test_a_full_server_answers_429_with_a_time_and_keeps_those_it_has():
    async with busy(config=settings(max_queries=3)) as (server, engine), server.http() as http:
        inside = [asyncio.create_task(http.post("/v1/chat/completions", json=BODY)) for _ in "123"]
        while len(engine.running) < 3:
            await asyncio.sleep(0.01)
        refused = await http.post("/v1/chat/completions", json=BODY)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert len(engine.running) == 3
        assert (await http.get("/healthz")).status_code == 200
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)
        await server.idle()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:self-consistency"])
async def test_a_client_that_leaves_frees_its_whole_gang(stream, model):
    async with busy() as (server, engine):
        body = {**BODY, "model": model, "stream": stream, "dynasor": {"wave": 4}}
        async with server.http() as http:
            if stream:
                async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                    async for _ in response.aiter_bytes():
                        if engine.running:
                            break
            else:
                asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
                while not engine.running:
                    await asyncio.sleep(0.01)
                asking.cancel()
        await server.idle()
        assert engine.requests
        assert not engine.running
        assert not engine.ended


async def test_a_body_that_is_too_large_is_refused_before_it_is_read():
    async with running(ScriptedEngine(), config=settings(max_body=2000)) as server:
        async with server.http() as http:
            large = await http.post("/v1/chat/completions", content=b"x" * 3000)

            async def pieces():
                for _ in range(100):
                    yield b"x" * 100

            endless = await http.post("/v1/chat/completions", content=pieces())
    assert (large.status_code, endless.status_code) == (413, 413)


async def test_a_client_that_does_not_send_on_gets_408():
    async with running(ScriptedEngine(), config=settings(stalled=0.2)) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(server.root[-5:].strip(":"))
        )
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        )
        head = await reader.readline()
        writer.close()
        await writer.wait_closed()
        await server.idle()
    assert b"408" in head


async def test_a_client_that_does_not_read_on_loses_its_gang():
    words = "word " * 200_000
    engine = ScriptedEngine(lambda request: words)
    async with running(engine, config=settings(stalled=0.3)) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(server.root[-5:].strip(":")), limit=1024
        )
        body = json.dumps({**BODY, "stream": True, "n": 4}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        )
        kind = "Content-Type: application/json"
        writer.write(f"{head}\r\n{kind}\r\n\r\n".encode() + body)
        await reader.readline()
        while not engine.cut:
            await asyncio.sleep(0.05)
        await server.idle()
        # Nor does it keep its connection, though what waits there was never read.
        async with asyncio.timeout(30):
            while server.connections:
                await asyncio.sleep(0.05)
        writer.close()
    assert not engine.running


async def test_a_client_that_does_not_read_a_whole_answer_frees_its_place():
    engine = ScriptedEngine(lambda request: "word" * 4_000_000)
    async with running(engine, config=settings(stalled=0.3)) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(server.root[-5:].strip(":")), limit=1024
        )
        body = json.dumps(BODY).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        )
        kind = "Content-Type: application/json"
        writer.write(f"{head}\r\n{kind}\r\n\r\n".encode() + body)
        await reader.readline()
        await server.idle()
        async with asyncio.timeout(30):
            while server.connections:
                await asyncio.sleep(0.05)
        writer.close()


async def test_a_query_is_let_go_of_also_if_its_handler_is_cancelled_while_its_client_leaves():
    """As Ray Serve does; uvicorn does not."""

    class Slow(ScriptedEngine):
        async def abort(self, ids):
            await asyncio.sleep(0.2)
            await super().abort(ids)

    engine, left = Slow(lambda request: None), asyncio.Event()
    body = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}

    async def receive():
        if body:
            return body.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    async with running(engine) as server:
        serving = asyncio.create_task(server.door({**scope, "query_string": b""}, receive, send))
        while not engine.running:
            await asyncio.sleep(0.01)
        left.set()
        await asyncio.sleep(0.05)
        serving.cancel()
        assert isinstance((await asyncio.gather(serving, return_exceptions=True))[0], BaseException)
        assert not server.service.live
        assert server.service.idle.is_set()
        async with asyncio.timeout(10):
            while engine.running:
                await asyncio.sleep(0.01)
        assert not engine.ended  # what it had in the engine is cut all the same


async def test_other_sites_pages_and_names_are_kept_out(shared):
    async with shared.http() as http:
        foreign = await http.post(
            "/v1/chat/completions", json=BODY, headers={"Origin": "https://evil.example"}
        )
        rebound = await http.get("/v1/models", headers={"Host": "evil.example"})
        own = await http.get("/v1/models", headers={"Origin": shared.root})
        asked = await http.options(
            "/v1/chat/completions",
            headers={"Origin": shared.root, "Access-Control-Request-Method": "POST"},
        )
        plain = await http.post(
            "/v1/chat/completions", content=json.dumps(BODY), headers={"Content-Type": "text/plain"}
        )
    assert (foreign.status_code, rebound.status_code, own.status_code) == (403, 403, 200)
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers
    assert plain.status_code in (400, 415)


async def test_a_prompt_that_is_too_long_is_refused():
    async with running(ScriptedEngine(), config=settings(max_prompt_tokens=10)) as server:
        long = [{"role": "user", "content": "word " * 50}]
        with pytest.raises(openai.BadRequestError) as caught:
            await server.openai().chat.completions.create(model=MODEL, messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


async def test_neither_keys_nor_prompts_reach_the_log(caplog):
    caplog.set_level(logging.DEBUG, logger="serving")
    body = {**BODY, "messages": [{"role": "user", "content": "SECRET-PROMPT"}]}
    async with running(ScriptedEngine(), keys()) as server, server.http() as http:
        await http.post("/v1/chat/completions", json=body, headers=bearer(ALICE))
        await http.post(
            "/v1/chat/completions", json={**body, "n": "SECRET-PROMPT"}, headers=bearer(ALICE)
        )
        await http.post("/v1/chat/completions", json=body, headers=bearer("wrong-secret-key"))
        await http.get("/", params={"key": ALICE})
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert any(json.loads(line).get("query") for line in lines)
    for secret in ("SECRET-PROMPT", ALICE, "wrong-secret-key", "boxed"):
        assert not any(secret in line for line in lines)


async def test_the_id_of_a_request_is_in_answer_and_log(caplog):
    caplog.set_level(logging.INFO, logger="serving")
    async with running(ScriptedEngine()) as server, server.http() as http:
        named = await http.post("/v1/chat/completions", json=BODY, headers={"X-Request-Id": "me-1"})
        odd = await http.get("/healthz", headers={"X-Request-Id": 'not a "good" one'})
    assert named.headers["x-request-id"] == "me-1"
    assert odd.headers["x-request-id"] != 'not a "good" one'
