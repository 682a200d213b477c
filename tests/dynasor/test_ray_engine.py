"""The engine on Ray, its router and its policy, without a cluster: a handle that is scripted.

`tests/serving/test_ray.py` (slow) has the real thing.
"""

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from ray.exceptions import RayActorError, RayTaskError

from algorithms.program import Generation, Progress, Request, Sampling
from dynasor.config import load_config
from dynasor.engines.base import Capacity
from dynasor.engines.ray_replica import EXPECTED, ScaleByExpectedTokens
from dynasor.engines.ray_router import GangRouter
from dynasor.engines.ray_serve import RayServeEngine, together
from dynasor.errors import ConfigError, EngineError
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


async def answering(engine, answer):
    """What `measure` says where a replica answers so."""

    async def remote(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    engine._handle.measure = SimpleNamespace(remote=remote)
    return await engine.measure(ask())


async def test_a_prompt_is_measured_by_a_replica_and_refused_as_that_refuses_it():
    engine = RayServeEngine(Handle())
    assert await answering(engine, 7) == 7

    def raised(cause):
        return RayTaskError("measure", "its traceback", cause, pid=1, ip="here", proctitle="p")

    refused = raised(ValueError("the prompt has 9 tokens")).as_instanceof_cause()
    with pytest.raises(ValueError, match=r"^the prompt has 9 tokens$"):
        await answering(engine, refused)
    # Where none can tell the query goes on, and is refused by the engine itself if it must be.
    for lost in (GONE, TimeoutError(), raised(EngineError("dead")).as_instanceof_cause()):
        assert await answering(engine, lost) is None


async def test_what_a_new_version_of_the_replicas_has_room_for_is_learnt():
    handle = Handle()
    engine = RayServeEngine(handle)
    await engine.start()
    assert engine.capacity().max_running == 4
    told = [Capacity(8, "n", supports_seed=False), GONE]

    async def remote():
        if isinstance(answer := told.pop(0), Exception):
            raise answer
        return answer

    handle.capacity = SimpleNamespace(remote=remote)
    for _ in range(2):  # the second time nobody answers
        await engine.learn()
        assert engine.capacity() == Capacity(8, "n", supports_seed=False)


async def test_counters_are_those_of_all_replicas():
    told = [
        {"waiting": 2, "kv_now": 0.2, "kv_peak": 0.5, "prefix_hits": 10},
        {"waiting": 1, "kv_now": 0.4, "kv_peak": 0.3, "prefix_hits": 5},
    ]

    class Asked:
        async def results_async(self, *, timeout_s, return_exceptions):
            if isinstance(told, Exception):
                raise told
            return [*told, GONE]

    handle = Handle()
    handle.broadcast = lambda name: Asked()
    engine = RayServeEngine(handle)
    counted = await engine.counters()
    assert counted == {
        "waiting": 3,
        "kv_now": pytest.approx(0.3),
        "kv_peak": 0.5,
        "prefix_hits": 15,
    }
    assert together([]) == {}
    told = TimeoutError("in time")
    with pytest.raises(EngineError, match="do not tell"):
        await engine.counters()


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
    for name in ("update_replicas", "on_replica_actor_died"):
        monkeypatch.setattr(f"ray.serve.request_router.RequestRouter.{name}", lambda *_: None)
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
    assert {each.replica_id.unique_id for rank in ranks for each in rank} == {"r1", "r2"}
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


async def test_a_replica_found_dead_is_left_before_the_controller_tells_of_it(router):
    home = await first(router, pending(0))
    router.on_replica_actor_died(replica(home).replica_id)
    other = await first(router, pending(1))
    assert other != home
    router.on_replica_actor_died(replica(home).replica_id)
    router.update_replicas([replica(other), replica("r3")])
    assert sorted(router._index) == sorted([other, "r3"])
    # It runs until it is told to have ended; then its place is taken.
    assert router._placements.replicas[0].requests + router._placements.replicas[1].requests == 2
