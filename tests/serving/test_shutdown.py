"""The end of the real server: signals, the time to drain, and what is cut after it."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import httpx
import openai
import pytest

from dynasor.slo.promise import SloConfig
from serving import server as serving_server
from serving.keys import Keys
from serving.server import listen
from tests.scripted_server import ScriptedServer, stall, stream
from tests.serving.running_server import QUESTION, settings

SC = "m:self-consistency"


@asynccontextmanager
async def served(remote, slo=None, **server):
    """`dynasor serve` in this loop, in front of a scripted remote engine."""
    config = settings(**server)
    engine = config.engine.model_copy(update={"base_urls": (remote.url,), "model": "m"})
    update = {"engine": engine, "slo": SloConfig.model_validate(slo or {})}
    config = config.model_copy(update=update)
    door = listen("127.0.0.1", 0)
    root = f"http://127.0.0.1:{door.getsockname()[1]}"
    serving = asyncio.create_task(serving_server._serve(config, Keys([]), lambda: config, door))
    try:
        async with httpx.AsyncClient(base_url=root, timeout=30) as http:
            while (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)
        yield root, serving
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        door.close()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def client_of(root):
    return openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="none", max_retries=0, timeout=60)


async def begun(remote, root, model, stream):
    """A query at work, whose second sample never ends."""
    asking = asyncio.create_task(
        client_of(root).chat.completions.create(model=model, messages=QUESTION, stream=stream)
    )
    await remote.asked(2)
    return asking


async def test_queries_that_do_not_end_within_the_drain_give_their_best_answers():
    async with ScriptedServer(default=stall("half an ")) as remote:
        remote.replies = [stream("it is \\boxed{4}")]
        async with served(remote, drain=0.3) as (root, serving):
            asking = await begun(remote, root, SC, stream=False)
            os.kill(os.getpid(), signal.SIGTERM)
            answer = await asking
            async with asyncio.timeout(30):
                await serving
    assert (answer.dynasor["answer"], answer.dynasor["stopped"]) == ("4", "deadline")
    assert answer.dynasor["best_so_far"]


async def test_a_second_signal_does_not_wait_for_the_drain():
    async with ScriptedServer(default=stall("half an ")) as remote:
        remote.replies = [stream("it is \\boxed{4}")]
        async with served(remote, drain=3000) as (root, serving):
            asking = await begun(remote, root, SC, stream=False)
            os.kill(os.getpid(), signal.SIGTERM)
            async with httpx.AsyncClient(base_url=root) as http:
                with pytest.raises(httpx.TransportError):
                    while True:  # until the door is shut
                        await http.get("/healthz", headers={"connection": "close"})
            assert not asking.done()
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(30):
                answer = await asking
                await serving
    assert answer.dynasor["best_so_far"]


async def test_clients_that_do_not_take_their_answers_are_cut_after_the_grace(monkeypatch):
    monkeypatch.setattr(serving_server, "CUT_GRACE", 0.5)
    words = stream(*("word " * 2000 for _ in range(800)))
    async with ScriptedServer(default=words) as remote:
        async with served(remote, drain=0.2, stalled=3000) as (root, serving):
            reader, writer = await asyncio.open_connection(*root[7:].split(":"), limit=1024)
            body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}'
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await reader.readline()
            await asyncio.sleep(0.2)  # it reads no more
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(30):
                await serving
            writer.close()


async def test_an_open_live_page_keeps_no_server_from_its_end():
    async with ScriptedServer(default=stream("x")) as remote:
        async with served(remote, drain=3000) as (root, serving):
            async with (
                httpx.AsyncClient(base_url=root, timeout=30) as http,
                http.stream("GET", "/events") as response,
            ):
                pictures = response.aiter_lines()
                await anext(pictures)
                os.kill(os.getpid(), signal.SIGTERM)
                async with asyncio.timeout(30):
                    async for _ in pictures:
                        pass
            async with asyncio.timeout(30):
                await serving
