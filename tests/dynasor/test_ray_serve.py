"""Gangs and a budget for all of them on real Ray Serve: router, cuts, hints, a replica that is killed.

The engines only count.

Slow, since Ray begins a dozen processes. `tests/serving/test_ray.py` has vLLM and the whole server.
"""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from algorithms.program import Generation, Progress, Request, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.equivalence import AnswerGroups, ExactEquivalence
from dynasor.allocator import GlobalBudget
from dynasor.engines.base import Capacity
from dynasor.runtime import Runtime
from dynasor.scheduling.gang import Hints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PLACES = 3
ENDS = 1.0
"""Seconds after which Serve has told its router of all requests that have ended."""


class Counting:
    """Stands for `EngineReplica`: a token each 50 ms."""

    def __init__(self):
        self.cuts = set()
        self.news = {}

    async def generate(self, request, hints, **_):
        from ray import serve

        yield serve.get_replica_context().replica_id.unique_id
        text = ""
        for n in range(request.sampling.max_tokens):
            await asyncio.sleep(0.05)
            if request.id in self.cuts:
                yield Generation(request.id, text, n, finish_reason="aborted")
                return
            text += "x"
            yield Progress(request.id, text, n + 1)
        yield Generation(request.id, text + " \\boxed{7}", len(text), prompt_tokens=1)

    async def tell(self, news, **_):
        self.news |= news

    async def cut(self, requests, **_):
        self.cuts.update(requests)

    async def capacity(self):
        return Capacity(PLACES, "counting", supports_seed=True)

    async def look(self, **_):
        return os.getpid(), self.news, self.cuts


class ToldByFile:
    """Serve's autoscaling policy: one replica once there is a file, until then two."""

    def __init__(self, file):
        self.file = Path(file)

    def __call__(self, context):
        return 1 if self.file.exists() else 2, {}


@pytest.fixture(scope="module")
def fewer(tmp_path_factory):
    return tmp_path_factory.mktemp("scale") / "fewer"


@pytest.fixture(scope="module")
def handle(fewer):
    pytest.importorskip("ray")
    import ray
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

    from serving.ray_app import ENVIRONMENT

    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(Counting).options(
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=2,
            initial_replicas=2,
            downscale_delay_s=0,
            upscale_delay_s=0,
            policy=AutoscalingPolicy(
                policy_function=f"{__name__}:ToldByFile", policy_kwargs={"file": str(fewer)}
            ),
        ),
        graceful_shutdown_timeout_s=1,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        request_router_config=RequestRouterConfig(
            request_router_class="dynasor.engines.ray_router:GangRouter",
            request_router_kwargs={"places": PLACES},
        ),
    )
    yield serve.run(deployment.bind(), name="counting", route_prefix=None)
    serve.shutdown()
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


async def alive(handle):
    """Replicas that the router knows and that answer: Serve's own count has a killed one for a while."""
    asked = await handle.broadcast("look").results_async(timeout_s=5, return_exceptions=True)
    return sum(isinstance(each, tuple) for each in asked)


async def run(engine, id, gang, tokens=5):
    """Tokens, how it ended, and the replicas that it was on."""
    request = Request(id, gang, "p", Sampling(max_tokens=tokens), report_every=1)
    events, where = [], {}
    async for event in engine.submit(request):
        events.append(event)
        where[engine._where[id]] = None
    return events[-1].tokens, events[-1].finish_reason, list(where)


async def test_one_budget_of_tokens_is_kept_over_all_replicas(handle):
    from dynasor.engines.ray_serve import RayServeEngine

    engine = RayServeEngine(handle)
    await engine.start()
    where = {}
    submit = engine.submit

    async def watched(request):
        async for event in submit(request):
            where[request.id] = engine._where[request.id]
            yield event

    engine.submit = watched
    sampling, slots, tokens = Sampling(max_tokens=5), 2 * PLACES, 120
    programs = [
        SelfConsistency(
            Task(
                f"q{number}",
                "what?",
                sampling,
                extract=lambda text: extract(text, "boxed"),
                groups=AnswerGroups(ExactEquivalence()),
            ),
            samples=16,
        )
        for number in range(6)
    ]
    # Answers are never worth enough, so that only the budget ends it.
    runtime = Runtime(engine, GlobalBudget(tokens, lambda votes: 1.0 / votes.n, slots=slots))
    done = [outcome async for outcome in runtime.run(programs, admission=6)]
    await engine.close()
    spent = sum(outcome.bill.output for outcome in done)
    assert {outcome.reason for outcome in done} == {"budget"}
    assert {outcome.answer.value for outcome in done} == {"7"}
    assert tokens <= spent <= tokens + slots * sampling.max_tokens
    assert len(set(where.values())) == 2
    assert {outcome.samples for outcome in done} <= {4, 5}  # shared out evenly


async def test_gangs_on_real_replicas(handle):
    from dynasor.engines.ray_serve import RayServeEngine, _call

    engine = RayServeEngine(handle)
    await engine.start()
    await asyncio.sleep(ENDS)
    assert engine.capacity().model == "counting"

    # Two gangs, each together; a gang that is larger than a replica is split when its home is full.
    both = await asyncio.gather(
        *(run(engine, f"{gang}{n}", gang) for gang in "ab" for n in range(3))
    )
    homes = [where for _, _, (where,) in both]
    assert len(set(homes[:3])) == len(set(homes[3:])) == 1
    assert homes[0] != homes[3]
    await asyncio.sleep(ENDS)
    large = await asyncio.gather(*(run(engine, f"c{n}", "c") for n in range(5)))
    assert {end for _, end, _ in (*both, *large)} == {"stop"}
    homes = [where for _, _, (where,) in large]
    assert sorted(homes.count(where) for where in set(homes)) == [2, 3]

    # A cut and news reach the replica; when it is killed, what it had not finished is run elsewhere.
    tasks = [asyncio.create_task(run(engine, f"d{n}", "d", 60)) for n in range(3)]
    while any(engine._where.get(f"d{n}") is None for n in range(3)):
        await asyncio.sleep(0.05)
    engine.hint("d", Hints(tokens=9.0))
    await engine.abort(["d0"])
    assert (await tasks[0])[1] == "aborted"
    home = engine._where["d1"]
    pid, news, cuts = await _call(handle.look, to=home)
    assert news["d"].tokens == 9
    assert cuts == {"d0"}
    os.kill(pid, signal.SIGKILL)
    for tokens, end, where in await asyncio.gather(*tasks[1:]):
        assert (tokens, end) == (60, "stop")
        assert where[0] == home
        assert len(where) == 2
    await engine.close()


async def test_what_a_replica_that_is_drained_does_not_end_in_time_is_handed_over(handle, fewer):
    """The last one: there is one replica from then on."""
    from dynasor.engines.ray_serve import RayServeEngine

    engine = RayServeEngine(handle)
    await engine.start()
    async with asyncio.timeout(60):  # another test may have killed one
        while await alive(handle) < 2:
            await asyncio.sleep(0.2)
    await asyncio.sleep(ENDS)
    tasks = [asyncio.create_task(run(engine, f"{gang}0", gang, 400)) for gang in "ef"]
    while None in (homes := [engine._where.get(f"{gang}0") for gang in "ef"]):
        await asyncio.sleep(0.05)
    assert len(set(homes)) == 2
    fewer.touch()
    ends = await asyncio.gather(*tasks)
    assert [(tokens, end) for tokens, end, _ in ends] == [(400, "stop")] * 2
    stayed, moved = sorted((where for _, _, where in ends), key=len)
    assert len(stayed) == 1
    assert moved[1:] == stayed
    await engine.close()
