"""The engine on Ray, its router and its policy, without a cluster: a handle that is scripted.

`tests/serving/test_ray.py` (slow) has the real thing.
"""

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from ray.exceptions import RayActorError

from algorithms.program import Generation, Progress, Request, Sampling
from dynasor.config import load_config
from dynasor.engines.base import Capacity
from dynasor.engines.ray_replica import EXPECTED, ScaleByExpectedTokens
from dynasor.engines.ray_router import GangRouter
from dynasor.engines.ray_serve import RayServeEngine
from dynasor.errors import ConfigError
from dynasor.scheduling.gang import Hints


class Stream:
    """What a streaming call gives: parts, of which an exception is raised."""

    def __init__(self, parts):
        self._parts = iter(parts)
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        part = next(self._parts, None)
        if part is None:
            raise StopAsyncIteration
        if isinstance(part, Exception):
            raise part
        return part

    def cancel(self):
        self.cancelled = True


class Handle:
    """Answers each streaming call with the next script; notes all calls."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.calls = []
        self.streams = []
        for name in ("capacity", "cut", "tell"):
            setattr(self, name, SimpleNamespace(remote=self._plain(name)))

    def _plain(self, name):
        async def remote(*arguments, **more):
            self.calls.append((name, arguments, more))
            return Capacity(4, "m", supports_seed=True)

        return remote

    def options(self, *, method_name, stream):
        assert (method_name, stream) == ("generate", True)
        return SimpleNamespace(remote=self._generate)

    def _generate(self, request, hints, **more):
        self.calls.append(("generate", (request, hints), more))
        self.streams.append(Stream(self.scripts.pop(0)))
        return self.streams[-1]

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


def ask(id="q#0", program="q", prefix="", seed=None):
    return Request(
        id, program, "1 + 1", Sampling(max_tokens=9, seed=seed), prefix=prefix, report_every=1
    )


async def events_of(engine, request=None):
    return [event async for event in engine.submit(request or ask())]


END = Generation("q#0", "b", 1)
GONE = RayActorError()


async def test_a_lost_request_goes_on_elsewhere_once():
    handle = Handle(["r1", Progress("q#0", "a", 1), GONE], ["r2", END])
    engine = RayServeEngine(handle)
    await engine.start()
    events = await events_of(engine)
    assert [(event.text, event.tokens) for event in events] == [("a", 1), ("ab", 2)]
    (first, _), (second, _) = (call[0] for call in handle.named("generate"))
    assert (first.prefix, second.prefix, second.sampling.max_tokens) == ("", "a", 8)
    assert [call[1]["avoid"] for call in handle.named("generate")] == [[], ["r1"]]


async def test_with_a_seed_it_begins_again():
    handle = Handle(["r1", Progress("q#0", "x", 1), GONE], ["r2", Progress("q#0", "x", 1), END])
    events = await events_of(RayServeEngine(handle), ask(seed=1))
    assert [event.text for event in events] == ["x", "b"]
    assert [call[0][0].prefix for call in handle.named("generate")] == ["", ""]


async def test_one_that_is_lost_twice_fails_by_itself():
    handle = Handle([GONE], ["r2", GONE])
    (end,) = await events_of(RayServeEngine(handle))
    assert end.finish_reason == "error"
    assert "lost twice" in end.error


async def test_a_cut_goes_to_the_replica_and_one_that_died_meanwhile_is_not_run_again():
    handle = Handle(["r1", Progress("q#0", "a", 1), GONE])
    engine = RayServeEngine(handle)
    reading = engine.submit(ask())
    assert (await anext(reading)).text == "a"
    await engine.abort(["q#0", "unknown"])
    assert handle.named("cut") == [((["q#0"],), {"to": "r1"})]
    end = await anext(reading)
    assert (end.finish_reason, end.text, end.tokens) == ("aborted", "a", 1)


async def test_a_reader_that_leaves_ends_the_call():
    handle = Handle(["r1", Progress("q#0", "a", 1), END])
    reading = RayServeEngine(handle).submit(ask())
    await anext(reading)
    await reading.aclose()
    await asyncio.sleep(0)
    assert handle.streams[0].cancelled


async def test_calls_are_made_apart_from_the_query_that_they_serve():
    mark = ContextVar("mark", default="none")
    handle = Handle(["r1", END])
    seen = []
    generate = handle._generate
    handle._generate = lambda *a, **more: seen.append(mark.get()) or generate(*a, **more)
    mark.set("a client's request")
    await events_of(RayServeEngine(handle))
    assert seen == ["none"]
    assert not handle.streams[0].cancelled


async def test_hints_go_to_the_replicas_of_the_gang_and_with_its_requests():
    handle = Handle(["r1", Progress("q#0", "a", 1), END], ["r1", END])
    engine = RayServeEngine(handle)
    engine.hint("q", Hints(tokens=50.0))
    reading = engine.submit(ask())
    await anext(reading)
    assert handle.named("generate")[0][0][1].tokens == 50
    assert engine.expected() == 50
    engine.hint("q", Hints(tokens=40.0))
    engine.hint("other", Hints(tokens=1.0))
    while not handle.named("tell"):
        await asyncio.sleep(0)
    ((news,), where) = handle.named("tell")[0]
    assert (list(news), news["q"].tokens, where) == (["q"], 40.0, {"to": "r1"})
    assert (await anext(reading)).finish_reason == "stop"
    await reading.aclose()
    assert engine.expected() == 0
    await events_of(engine, ask("q#1", prefix="b"))  # a branch is sent to its parent's replica
    assert handle.named("generate")[1][1]["author"] == "r1"
    await engine.close()


def test_scaling_counts_what_all_replicas_expect():
    policy = ScaleByExpectedTokens(100.0)
    metrics = {EXPECTED: {"r1": 150.0, "r2": 120.0}}
    context = SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=2)
    assert policy(context)[0] == 3
    assert policy(SimpleNamespace(aggregated_metrics=None, target_num_replicas=2))[0] == 1


# The router.


def replica(name):
    return SimpleNamespace(replica_id=SimpleNamespace(unique_id=name))


@pytest.fixture
def router(monkeypatch):
    monkeypatch.setattr("ray.serve.request_router.RequestRouter.update_replicas", lambda *_: None)
    router = GangRouter.__new__(GangRouter)
    router.initialize_state(places=2)
    router.update_replicas([replica("r1"), replica("r2")])
    return router


def pending(number, method="generate", args=None, **more):
    more = {"author": None, "avoid": [], **more} if method == "generate" else more
    return SimpleNamespace(
        args=args or (ask(f"q#{number}"), Hints()),
        kwargs=more,
        metadata=SimpleNamespace(call_method=method, internal_request_id=f"i{number}"),
    )


async def first(router, call):
    ranks = await router.choose_replicas([replica("r1"), replica("r2")], call)
    names = [each.replica_id.unique_id for rank in ranks for each in rank]
    assert sorted(names) == ["r1", "r2"]
    return ranks[0][0].replica_id.unique_id


async def test_a_gang_stays_together_until_its_replica_is_full(router):
    home = await first(router, pending(0))
    assert await first(router, pending(1)) == home
    other = await first(router, pending(2))
    assert other != home
    router.on_request_completed(None, "i0")
    assert await first(router, pending(3)) == home
    assert await first(router, pending(4, author=other)) == other
    # One that was lost and is sent again is counted once, whenever the end of the first is told.
    again = pending(6, args=(ask("q#3"), Hints()), avoid=[home])
    assert await first(router, again) == other
    router.on_request_completed(None, "i3")
    assert router._placements.replicas[router._index[other]].requests == 3
    assert await first(router, pending(5, avoid=[home])) == other


async def test_what_is_addressed_goes_there_and_news_are_read_on_the_way(router):
    home = await first(router, pending(0))
    news = pending(1, "tell", ({"q": Hints(tokens=70.0)},), to="r2")
    assert await first(router, news) == "r2"
    assert sorted(each.expected for each in router._placements.replicas) == [0.0, 70.0]
    assert (await router.choose_replicas([replica("r1")], pending(2, "capacity")))[0]
    router.update_replicas([replica("r3")])
    ranks = await router.choose_replicas([replica("r3")], pending(3))
    assert ranks[0][0].replica_id.unique_id == "r3" != home


def test_evidence_of_promises_is_not_kept_in_a_file_on_ray():
    from serving.keys import Keys
    from serving.ray_app import application

    config = load_config(overrides={"slo": {"watch": {"file": "e.json"}}}, environment={})
    with pytest.raises(ConfigError, match=r"slo\.watch\.file = 'e\.json': on Ray"):
        application(config, Keys([]))
