"""The engine on several OpenAI-compatible servers: who gets which request, and who takes over."""

import asyncio
import json

import pytest

from dynasor.engines.openai import OpenAIEngine
from tests.dynasor.openai_requests import ask, end_of
from tests.scripted_server import ScriptedServer, chunk, drop, events, stall, status


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


async def test_a_program_stays_on_its_server_and_programs_spread(server):
    async with ScriptedServer() as second:
        engine = OpenAIEngine([server.url, second.url])
        await engine.start()
        requests = [ask(f"{p}#{n}", p, seed=n) for n in range(3) for p in "abcd"]
        await asyncio.gather(*(end_of(engine, request) for request in requests))
        await end_of(engine, ask("a#9", "a"))
        await engine.close()
        assert sorted([len(server.exchanges), len(second.exchanges)]) == [6, 7]


@pytest.mark.parametrize("fault", [status(503), drop, stall()])
async def test_a_request_moves_to_a_server_that_answers(server, fault):
    async with ScriptedServer() as second:
        engine = OpenAIEngine([server.url, second.url], retries=0, timeout=2)
        await engine.start()
        server.default = fault
        ends = [await end_of(engine, ask(f"{p}#0", p)) for p in "abc"]
        assert {end.finish_reason for end in ends} == {"stop"}
        # The first one was warning enough.
        assert (len(server.exchanges), len(second.exchanges)) == (1, 3)
        await engine.close()


async def test_one_dead_server_at_the_start_is_left_for_later(server, dead_url, caplog):
    engine = OpenAIEngine([dead_url, server.url], retries=0)
    await engine.start()
    assert f"left for later: {dead_url}" in caplog.text
    assert (await end_of(engine)).finish_reason == "stop"
    assert "trying the next" not in caplog.text
    await engine.close()


@pytest.fixture
async def two():
    """Two servers and an engine on them, whose checks are quick."""
    async with ScriptedServer() as first, ScriptedServer() as second:
        engine = OpenAIEngine(
            [first.url, second.url], retries=0, timeout=20, max_running=4, health_every=0.2
        )
        await engine.start()
        yield first, second, engine
        await engine.close()


def dies_after(*texts):
    """The begin of an answer, and then a broken connection, as of a server that is killed."""

    async def reply(exchange):
        await exchange.head(transfer_encoding="chunked")
        for text in texts:
            data = f"data: {json.dumps(chunk(text))}\n\n".encode()
            await exchange.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    return reply


@pytest.mark.parametrize("break_off", [dies_after("so", " far"), events(chunk("so far"))])
async def test_a_request_that_had_begun_is_run_elsewhere_once(two, break_off):
    first, second, engine = two
    first.replies = second.replies = [break_off]  # whichever is asked first
    end = await end_of(engine)
    assert (end.finish_reason, end.text, end.tokens) == ("stop", "four words in all", 4)
    assert len(first.exchanges) + len(second.exchanges) == 2
    first.default = second.default = break_off
    end = await end_of(engine, ask("r#0", "r"))
    assert end.finish_reason == "error"
    assert len(first.exchanges) + len(second.exchanges) == 4


@pytest.mark.parametrize(("seed", "text"), [(None, "so far four words in all"), (1, None)])
async def test_who_read_along_sees_one_text_and_a_seed_begins_again(two, seed, text):
    first, second, engine = two
    first.replies = second.replies = [dies_after("so", " far ")]
    request = ask(report_every=1, seed=seed, max_tokens=50)
    *progress, end = [event async for event in engine.submit(request)]
    bodies = first.bodies + second.bodies
    assert len(bodies) == 2
    if seed is None:
        assert {(body["messages"][-1]["content"], body["max_tokens"]) for body in bodies} == {
            ("what?", 50),
            ("so far ", 48),
        }
        assert (end.text, end.tokens) == (text, 6)
        assert [event.tokens for event in progress] == [1, 2, 3, 4, 5, 6]
        assert all(text.startswith(event.text) for event in progress)
    else:
        assert [body["max_tokens"] for body in bodies] == [50, 50]
        assert (end.text, end.tokens) == ("four words in all", 4)
        assert [event.tokens for event in progress] == [1, 2, 3, 4]  # those of the first are known


async def test_siblings_that_had_ended_are_not_run_again(two):
    first, second, engine = two
    done = [await end_of(engine, ask(f"q#{n}")) for n in range(2)]
    home, other = (first, second) if first.exchanges else (second, first)
    assert (len(home.exchanges), len(other.exchanges)) == (2, 0)
    home.default = drop
    moved = await asyncio.gather(*(end_of(engine, ask(f"q#{n}")) for n in (2, 3)))
    assert {end.finish_reason for end in (*done, *moved)} == {"stop"}
    assert len(other.exchanges) == 2
    assert len(home.exchanges) <= 4


async def test_a_server_that_hangs_is_found_and_its_requests_are_run_elsewhere(two):
    first, second, engine = two
    first.replies = second.replies = [stall("begun")]
    ending = asyncio.create_task(end_of(engine))
    while not first.exchanges and not second.exchanges:
        await asyncio.sleep(0.01)
    home = first if first.exchanges else second
    home.hangs = True  # its streams and its list of models
    end = await ending  # long before the 20 s of the stream's own limit
    assert (end.finish_reason, end.text) == ("stop", "four words in all")
    await home.hung_up.wait()


async def test_a_full_home_shares_its_gang_with_a_free_server(two):
    first, second, engine = two  # places for two requests each
    first.default = second.default = stall()
    endings = [asyncio.create_task(end_of(engine, ask(f"q#{n}"))) for n in range(4)]
    while len(first.exchanges) + len(second.exchanges) < 4:
        await asyncio.sleep(0.01)
    assert (len(first.exchanges), len(second.exchanges)) == (2, 2)
    await engine.abort([f"q#{n}" for n in range(4)])
    await asyncio.gather(*endings)
