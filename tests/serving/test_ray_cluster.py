"""What endpoints on Ray share, and what becomes of queries when a part of the cluster dies."""

import asyncio
from collections import Counter

import psutil
import pytest
import pytest_asyncio

from dynasor.config import RankingConfig
from serving.admission_share import SETTLING
from tests.serving.running_server import MODEL, QUESTION, settings
from tests.serving.scripted_engine import ScriptedEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

AGREED = SETTLING + 4.0
"""Seconds in which all endpoints have reported to a new view and heard of it again."""
LONG = {"model": MODEL, "messages": QUESTION}
SHORT = {**LONG, "max_tokens": 3}


@pytest_asyncio.fixture(scope="module")
async def on_ray():
    pytest.importorskip("ray")
    from tests.serving.ray_server import RayServer

    cluster = RayServer()
    await cluster.start()
    yield cluster
    await cluster.close()


def endless():
    """Each request runs for as many tokens as it may have."""
    return ScriptedEngine(lambda request: None, pause=0.02)


def two_endpoints(max_queries=256, **cluster):
    config = settings(max_queries=max_queries)
    told = config.cluster.model_copy(update={"endpoints": 2, **cluster})
    return config.model_copy(update={"cluster": told})


async def post(http, body):
    return (await http.post("/v1/chat/completions", json=body)).status_code


async def let_in(server, http, queries):
    """How many of so many long queries are taken; they end when this does."""
    asking = [asyncio.create_task(post(http, LONG)) for _ in range(queries)]
    await asyncio.sleep(3.0)
    refused = [task.result() for task in asking if task.done()]
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await server.idle()
    assert set(refused) <= {429}
    return queries - len(refused)


async def answered(http, tries=10):
    """Whether a query is answered, sooner or later."""
    for _ in range(tries):
        if await post(http, SHORT) == 200:
            return True
        await asyncio.sleep(1.0)
    return False


def processes(deployment):
    """Processes of a deployment's replicas."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if f":{deployment}" in " ".join(_words(each))]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_two_endpoints_have_one_limit_also_when_the_view_of_them_has_died(on_ray):
    import ray

    async with on_ray.running(endless(), config=two_endpoints(max_queries=4)) as server:
        async with server.http() as http:
            await asyncio.sleep(AGREED)
            assert 2 <= await let_in(server, http, 12) <= 4
            view = ray.get_actor("dynasor-global-view", namespace="dynasor")
            ray.kill(view, no_restart=False)
            assert await post(http, SHORT) == 200  # nobody waits for it
            assert 2 <= await let_in(server, http, 12) <= 4
            await asyncio.sleep(AGREED)
            assert 2 <= await let_in(server, http, 12) <= 4


async def test_prompts_are_ranked_by_a_deployment_of_its_own(on_ray):
    ranking = RankingConfig(model="cheap", deadline=5.0)
    config, engine = settings().model_copy(update={"ranking": ranking}), ScriptedEngine()
    async with on_ray.running(engine, config=config) as server, server.http() as http:
        for question in ("Say hello.", "Write an essay of two thousand words on the tides."):
            asked = [{"role": "user", "content": question}]
            assert await post(http, {**LONG, "messages": asked}) == 200
        assert len(processes("RankReplica")) == 1
    short, long = engine.hints.values()
    assert short.rank < long.rank
    assert short.tokens < long.tokens


async def test_tokens_that_are_expected_of_all_queries_close_the_door(on_ray):
    config = two_endpoints(max_expected_tokens=100.0)
    async with on_ray.running(endless(), config=config) as server, server.http() as http:
        await asyncio.sleep(AGREED)
        first = asyncio.create_task(post(http, LONG))  # some 500 tokens are expected of it
        await asyncio.sleep(3.0)
        assert not first.done()
        assert {await post(http, SHORT) for _ in range(6)} == {429}
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await answered(http)


async def test_queries_are_answered_while_serves_controller_is_dead(on_ray):
    import ray

    async with on_ray.running(endless(), config=two_endpoints()) as server, server.http() as http:
        assert await answered(http)
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        ray.kill(controller, no_restart=False)
        assert {await post(http, SHORT) for _ in range(10)} == {200}
        # It comes back, and replaces what dies from then on.
        before = {each.pid for each in processes("ScriptedReplica")}
        assert len(before) == 2
        psutil.Process(min(before)).kill()
        assert {await post(http, SHORT) for _ in range(10)} == {200}
        async with asyncio.timeout(90):
            while len({each.pid for each in processes("ScriptedReplica")} - before) < 1:
                await asyncio.sleep(0.5)
        assert await answered(http)


async def test_an_endpoint_that_dies_takes_its_queries_with_it_and_is_replaced(on_ray):
    async with on_ray.running(endless(), config=two_endpoints()) as server, server.http() as http:
        assert await answered(http)
        before = {each.pid for each in processes("Endpoint")}
        assert len(before) == 2
        psutil.Process(min(before)).kill()
        assert await answered(http)
        async with asyncio.timeout(90):
            while len({each.pid for each in processes("Endpoint")} - before) < 1:
                await asyncio.sleep(0.5)
        assert await answered(http)


@pytest.mark.parametrize("endpoints", [1, 2])
async def test_a_new_version_fails_no_query(on_ray, endpoints):
    seen, over = Counter(), asyncio.Event()
    new = two_endpoints(max_queries=200, endpoints=endpoints)
    old = two_endpoints(endpoints=endpoints)
    async with on_ray.running(endless(), config=old) as server, server.http() as http:

        async def ask():
            while not over.is_set():
                seen[await post(http, SHORT)] += 1

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        before = {each.pid for each in processes("Endpoint") + processes("ScriptedReplica")}
        async with on_ray.running(endless(), config=new):
            async with asyncio.timeout(90):
                while before & {p.pid for p in psutil.Process().children(recursive=True)}:
                    await asyncio.sleep(0.5)
        over.set()
        await asyncio.gather(*asking)
    assert set(seen) == {200}
