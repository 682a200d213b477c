"""What official clients ask and get, once more: the same tests with Ray Serve in between.

Each runs unchanged against an endpoint and two engine replicas in processes of Ray's; only the scripted
engine stays in the test's own process. `ELSEWHERE` says which do not, and what is tested in their place.
"""

import asyncio
import json
import socket
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.serving import (
    test_filled_engine,
    test_front_door,
    test_protocol,
    test_refusals,
    test_served_programs,
)
from tests.serving.running_server import MODEL, QUESTION, settings
from tests.serving.scripted_engine import ScriptedEngine, boxed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODULES = (test_protocol, test_refusals, test_served_programs, test_filled_engine, test_front_door)
ELSEWHERE = {
    # They have no server.
    "test_efforts_that_cannot_be_served_are_one_line_at_the_start",
    # It does to the front door what Serve does: here that is the test of a client that leaves.
    "test_a_query_is_let_go_of_also_if_its_handler_is_cancelled_while_its_client_leaves",
    # It looks at what the server computes, not at what a client gets.
    "test_rules_that_clients_bring_are_not_played_on",
    # They read the log of their own process: below those of all processes of the cluster are read.
    "test_neither_keys_nor_prompts_reach_the_log",
    "test_the_id_of_a_request_is_in_answer_and_log",
    # Serve's proxy reads for a client that does not: what becomes of that is below.
    "test_a_client_that_does_not_read_on_loses_its_gang",
    "test_a_client_that_does_not_read_a_whole_answer_frees_its_place",
}
globals().update(
    {
        name: test
        for module in MODULES
        for name, test in vars(module).items()
        if name.startswith("test_") and name not in ELSEWHERE
    }
)


@pytest_asyncio.fixture(scope="module", autouse=True)
async def on_ray():
    """Have the tests' modules run their servers on Ray."""
    pytest.importorskip("ray")
    from tests.serving.ray_server import RayServer

    cluster = RayServer()
    await cluster.start()
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "running", cluster.running)
        yield cluster
    await cluster.close()


@pytest_asyncio.fixture
async def shared(on_ray):
    """In place of the one in this process."""
    async with on_ray.running(ScriptedEngine()) as server:
        yield server


async def test_the_id_of_a_request_is_in_answer_and_log_once(on_ray, shared):
    body = {"model": MODEL, "messages": QUESTION}
    async with shared.http() as http:
        named = await http.post(
            "/v1/chat/completions", json=body, headers={"X-Request-Id": "named-by-me"}
        )
        other = await http.get("/healthz")
        odd = await http.get("/healthz", headers={"X-Request-Id": 'not a "good" one'})
    assert odd.headers.get_list("x-request-id") == ['not a "good" one']  # by Serve's proxy
    assert named.headers.get_list("x-request-id") == ["named-by-me"]
    assert len(other.headers.get_list("x-request-id")) == 1
    lines = [line for line in on_ray.logs().splitlines() if '"request": "named-by-me"' in line]
    (access,) = [line for line in map(json.loads, lines) if line["logger"] == "serving.access"]
    assert (access["path"], access["status"]) == ("/v1/chat/completions", 200)


async def test_neither_keys_nor_prompts_reach_a_log_of_the_cluster(on_ray):
    alice, wrong = test_front_door.ALICE, "wrong-and-secret-key"
    known, bearer = test_front_door.keys(), test_front_door.bearer
    body = {"model": MODEL, "messages": [{"role": "user", "content": "SECRET-PROMPT"}]}
    ask = "/v1/chat/completions"
    engine = ScriptedEngine(boxed("SECRET-ANSWER"))
    async with on_ray.running(engine, known) as server, server.http() as http:
        good = await http.post(ask, json=body, headers=bearer(alice))
        bad = await http.post(ask, json={**body, "n": "SECRET-PROMPT"}, headers=bearer(alice))
        await http.post(ask, json=body, headers=bearer(wrong))
        await http.get("/", params={"key": alice})
        names = [each.headers["x-request-id"] for each in (good, bad)]
    logs = on_ray.logs()
    assert all(name in logs for name in names)
    for secret in ("SECRET-PROMPT", "SECRET-ANSWER", alice, wrong):
        assert secret not in logs


@pytest.mark.parametrize("stream", [False, True])
async def test_serves_proxy_reads_for_a_client_that_does_not(on_ray, stream):
    """So its query ends and frees its place as any other; what it has not read waits in the proxy."""
    words, length = (60, 100_000) if stream else (1, 16_000_000)
    text = " ".join(["x" * length] * words)
    engine = ScriptedEngine(lambda request: text)
    body = json.dumps({"model": MODEL, "messages": QUESTION, "stream": stream})
    config = settings(stalled=0.5, max_queries=1)
    async with on_ray.running(engine, config=config) as server, server.http() as http:
        where = urlsplit(server.root)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((where.hostname, where.port))
            slow.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
            lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {where.netloc}"]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            lines += ["Connection: close", "", body]
            writer.write("\r\n".join(lines).encode())
            assert b"200" in await reader.readline()
            await server.idle()
            assert len(engine.requests) == 1
            assert not engine.cut
            engine.say = boxed()
            other = {"model": MODEL, "messages": QUESTION}
            assert (await http.post("/v1/chat/completions", json=other)).status_code == 200
            rest = await reader.read()
            writer.close()
    assert rest.count(b"x" * 1000) >= words * length // 1000 - words
