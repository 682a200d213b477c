"""The gate in front of remote servers: who is sent next, and that no place is ever lost."""

import asyncio
import random

import pytest

from algorithms.program import Request, Sampling
from dynasor.config import Config, SchedulerConfig
from dynasor.engines.build import build_engine
from dynasor.engines.openai import OpenAIEngine
from dynasor.scheduling.admission import Gate
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.latest import LatestHints
from dynasor.scheduling.policies import POLICIES, Fcfs
from dynasor.scheduling.queue import Aging
from tests.scripted_server import ScriptedServer, stall, stream


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


def ask(gang, number, prompt=None, prefix=""):
    prompt = prompt or ({"role": "user", "content": f"{gang}{number}"},)
    return Request(f"{gang}#{number}", gang, prompt, Sampling(), prefix=prefix)


async def end_of(engine, request):
    return [event async for event in engine.submit(request)][-1]


async def order_of_arrival(server, policy, hints, cut=(), **settings):
    """In what order requests reach a server that two of another gang held when they came."""
    engine = OpenAIEngine(
        [server.url],
        model="m",
        max_running=2,
        scheduler=None if policy is None else SchedulerConfig(policy=policy, **settings),
    )
    server.replies = [stall(), stall()]
    first = [asyncio.create_task(end_of(engine, ask("first", n))) for n in range(2)]
    await server.asked(2)
    rest = []
    for number, gang in enumerate(["a", "b", "c", "a", "b", "c"]):
        rest.append(asyncio.create_task(end_of(engine, ask(gang, number))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the request's own task has come to the gate
    for gang, news in hints.items():
        engine.hint(gang, news)
    await engine.abort(cut)
    # One place for all that wait, so the server sees them one after the other.
    await engine.abort(["first#0"])
    await asyncio.gather(*rest)
    await engine.abort(["first#1"])
    await asyncio.gather(*first)
    await engine.close()
    return [body["messages"][0]["content"] for body in server.bodies[2:]]


LONG_FIRST = {"a": Hints(tokens=900), "b": Hints(tokens=500), "c": Hints(tokens=10)}


@pytest.mark.parametrize(
    ("policy", "order"),
    [
        (None, ["a0", "b1", "c2", "a3", "b4", "c5"]),
        ("none", ["a0", "b1", "c2", "a3", "b4", "c5"]),
        ("fcfs", ["a0", "b1", "c2", "a3", "b4", "c5"]),
        ("gang-fcfs", ["a0", "a3", "b1", "b4", "c2", "c5"]),
        ("gang-srpt", ["c2", "c5", "b1", "b4", "a0", "a3"]),
        ("default", ["c2", "c5", "b1", "b4", "a0", "a3"]),
    ],
)
async def test_requests_reach_the_server_in_the_order_of_the_policy(server, policy, order):
    assert await order_of_arrival(server, policy, LONG_FIRST) == order
    assert server.most_at_once == 2


async def test_a_late_query_goes_last(server):
    hints = LONG_FIRST | {"c": Hints(tokens=10, deadline=-1.0)}
    order = await order_of_arrival(server, "feasible-srpt", hints)
    assert order == ["b1", "b4", "a0", "a3", "c2", "c5"]


async def test_the_oldest_query_has_its_turns(server):
    order = await order_of_arrival(server, "gang-srpt", LONG_FIRST, patience=0, turns=2)
    # Every second admission goes to the oldest gang that waits.
    assert sorted(order.index(name) for name in ("a0", "a3"))[1] <= 3


async def test_cut_requests_leave_the_line(server):
    order = await order_of_arrival(server, "gang-srpt", LONG_FIRST, cut=["c#2", "b#4"])
    assert order == ["c5", "b1", "a0", "a3"]


@pytest.mark.parametrize("policy", POLICIES)
async def test_no_place_is_lost_to_cancels_and_exceptions(policy):
    rng = random.Random(7)
    gate = Gate(3, POLICIES[policy](), Aging(0.0, 2))
    inside = most = passed = 0

    async def pass_through(number):
        nonlocal inside, most, passed
        async with gate.slot(f"r{number}", f"g{number % 7}", Hints(tokens=number)) as ticket:
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                if rng.random() < 0.2:
                    raise RuntimeError("the request failed")
                ticket.tokens, ticket.finished = number, True
                passed += 1
            finally:
                inside -= 1

    tasks = []
    for number in range(600):
        tasks.append(asyncio.create_task(pass_through(number)))
        if rng.random() < 0.4:
            rng.choice(tasks).cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = {type(end) for end in ends}
    assert kinds == {type(None), RuntimeError, asyncio.CancelledError}
    assert most == 3
    assert passed == sum(end is None for end in ends)
    # All three places are free: three more can be inside together.
    three = asyncio.Barrier(3)

    async def meet(number):
        async with gate.slot(f"last{number}", "g", Hints()):
            await three.wait()

    await asyncio.gather(*(meet(n) for n in range(3)))


async def test_a_request_cut_in_the_moment_of_its_admission_gives_its_place_back():
    gate = Gate(1, Fcfs())

    leave = asyncio.Event()

    async def hold(name):
        async with gate.slot(name, name, Hints()):
            await leave.wait()
        if name == "first":
            second.cancel()  # it was admitted just now, and has not woken up yet

    tasks = [asyncio.create_task(hold(name)) for name in ("first", "second", "third")]
    second = tasks[1]
    await asyncio.sleep(0)
    leave.set()
    await tasks[2]
    assert second.cancelled()


@pytest.mark.parametrize("prompt", [None, "1 + 1 ="])
async def test_gang_and_hints_travel_with_requests_only_if_asked_for(server, prompt):
    for wanted in (False, True):
        config = Config.model_validate(
            {"engine": {"kind": "openai", "base_urls": [server.url], "gang_hints": wanted}}
        )
        engine = build_engine(config.engine, scheduler=config.scheduler)
        await engine.start()
        await end_of(engine, ask("q", 0, prompt))
        engine.hint("q", Hints(tokens=120.0, certainty=0.5))
        await end_of(engine, ask("q", 1, prompt, prefix="So"))
        await engine.close()
    without, without_too, fresh, hinted = server.bodies
    assert "vllm_xargs" not in without | without_too
    assert fresh["vllm_xargs"] == {"gang": "q"}
    assert hinted["vllm_xargs"] == {"gang": "q", "gang_tokens": 120.0, "gang_certainty": 0.5}
    assert hinted.get("continue_final_message", False) is (prompt is None)


async def test_hints_that_came_before_the_first_request_count(server):
    engine = OpenAIEngine(
        [server.url], model="m", max_running=1, scheduler=SchedulerConfig(policy="gang-srpt")
    )
    server.replies = [stall()]
    engine.hint("long", Hints(tokens=900))
    engine.hint("short", Hints(tokens=10))
    tasks = [asyncio.create_task(end_of(engine, ask("first", 0)))]
    await server.asked(1)
    server.default = stream("x")
    tasks += [asyncio.create_task(end_of(engine, ask(gang, 0))) for gang in ("long", "short")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await engine.abort(["first#0"])
    await asyncio.gather(*tasks)
    await engine.close()
    assert [body["messages"][0]["content"] for body in server.bodies[1:]] == ["short0", "long0"]


def test_a_deadline_comes_nearer_between_hint_and_request(monkeypatch):
    now = [100.0]
    hints = LatestHints(lambda: now[0])
    hints.note("q", Hints(tokens=5, deadline=30.0))
    now[0] += 12
    assert hints.of("q") == Hints(tokens=5, deadline=18.0)
    assert hints.of("unknown") == Hints()
    monkeypatch.setattr("dynasor.scheduling.latest.REMEMBERED", 2)
    for gang in ("x", "y"):
        hints.note(gang, Hints(rank=1))
    assert hints.of("q") == Hints()
