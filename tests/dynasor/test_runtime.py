"""The runtime with recorded samples, and with an engine that misbehaves on order."""

import asyncio

import pytest

from algorithms.program import Generation, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.equivalence import AnswerGroups
from certaindex.stopping import parse_rule
from dynasor.allocator import GlobalBudget, PerQuery
from dynasor.engines.base import Capacity
from dynasor.engines.replay import ReplayEngine
from dynasor.errors import EngineError
from dynasor.runtime import Runtime
from dynasor.traces import TraceSample


class SameText:
    def same_as_any(self, new, known):
        return known.index(new) if new in known else None


def program(name, samples=8):
    return SelfConsistency(
        Task(
            name,
            "what?",
            sampling=Sampling(),
            extract=lambda text: extract(text, "boxed"),
            groups=AnswerGroups(SameText()),
        ),
        samples=samples,
    )


def trace(name, answers, tokens=10):
    return [
        TraceSample(query=name, sample=i, tokens=tokens, answer=answer)
        for i, answer in enumerate(answers)
    ]


async def engine_of(samples, **more):
    engine = ReplayEngine(samples, **more)
    await engine.start()
    return engine


async def outcomes(runtime, programs, **more):
    more.setdefault("admission", 4)
    return {o.query: o async for o in runtime.run(programs, **more)}


async def test_a_certain_query_stops_early_and_a_split_one_uses_its_budget():
    engine = await engine_of(trace("easy", ["1"] * 8) + trace("hard", list("12345678")))
    runtime = Runtime(engine, PerQuery(parse_rule("certaindex:1.0,min=3"), wave=1))
    done = await outcomes(runtime, [program("easy"), program("hard")])
    assert (done["easy"].reason, done["easy"].samples) == ("certain", 3)
    assert (done["hard"].reason, done["hard"].samples) == ("complete", 8)
    assert done["easy"].bill.output == 30
    assert done["easy"].answer.value == "1"


async def test_what_is_in_flight_at_the_stop_is_cut_and_billed():
    samples = trace("q", ["1"] * 2, tokens=20) + [
        TraceSample(query="q", sample=i, tokens=100_000, answer="1") for i in range(2, 4)
    ]
    engine = await engine_of(samples, tokens_per_second=500)
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:2"), wave=4))
    outcome = (await outcomes(runtime, [program("q", samples=4)]))["q"]
    assert outcome.samples == 2
    assert outcome.bill.finished == 40
    assert 0 < outcome.bill.cut < 100_000


async def test_a_query_with_a_deadline_gives_its_best_answer_so_far():
    samples = trace("q", ["7"], tokens=1) + [
        TraceSample(query="q", sample=1, tokens=10_000_000, answer="8")
    ]
    engine = await engine_of(samples, tokens_per_second=1000)
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:2"), wave=2))
    outcome = await runtime.solve(program("q", samples=2), deadline=0.3)
    assert (outcome.reason, outcome.answer.value, outcome.samples) == ("deadline", "7", 1)


async def test_no_more_queries_at_once_than_admitted():
    class Counting(ReplayEngine):
        running = most = 0

        async def submit(self, request):
            Counting.running += 1
            Counting.most = max(Counting.most, Counting.running)
            await asyncio.sleep(0.001)
            events = [event async for event in super().submit(request)]
            Counting.running -= 1
            for event in events:
                yield event

    engine = Counting([s for q in "abcdefgh" for s in trace(q, ["1"] * 4)])
    await engine.start()
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:4"), wave=2))
    done = await outcomes(runtime, [program(q, 4) for q in "abcdefgh"], admission=3)
    assert len(done) == 8
    assert Counting.most == 6, "three queries of two samples each"


@pytest.mark.parametrize("first_ends", [0.05, 0.4])
async def test_an_answer_is_given_when_due_or_as_soon_as_there_is_one(first_ends):
    samples = trace("q", ["7"], tokens=round(1000 * first_ends)) + [
        TraceSample(query="q", sample=1, tokens=10_000_000, answer="8")
    ]
    engine = await engine_of(samples, tokens_per_second=1000)
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:2"), wave=2))
    outcome = await runtime.solve(program("q", samples=2), due=0.2, when_due=True)
    assert (outcome.reason, outcome.samples, outcome.answer.value) == ("deadline", 1, "7")
    assert outcome.seconds >= max(0.19, first_ends) * 0.99


async def test_without_leave_to_answer_when_due_the_rule_is_waited_for():
    engine = await engine_of(trace("q", ["7"] * 4))
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:4"), wave=1))
    outcome = await runtime.solve(program("q", 4), due=1e-6)
    assert (outcome.reason, outcome.samples) == ("complete", 4)


async def test_a_failing_request_costs_its_query_one_sample_and_no_other():
    engine = await engine_of(trace("short", ["1", "1"]) + trace("q", ["2"] * 4))
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:4"), wave=1))
    done = await outcomes(runtime, [program("short", 4), program("q", 4)])
    assert done["short"].failed == 2
    assert done["short"].answer.value == "1"
    assert "2 recorded samples" in done["short"].errors[0]
    assert done["q"].failed == 0


async def test_a_query_that_only_fails_says_so():
    engine = await engine_of(trace("other", ["1"]))
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:2"), wave=2))
    outcome = (await outcomes(runtime, [program("q", 2)]))["q"]
    assert (outcome.reason, outcome.answer.value) == ("failed", None)


class DyingEngine(ReplayEngine):
    """Dies when the given request comes."""

    def __init__(self, samples, victim):
        super().__init__(samples)
        self._victim = victim
        self.aborted = []

    async def submit(self, request):
        if request.id == self._victim:
            raise EngineError("the engine died")
        async for event in super().submit(request):
            yield event


async def test_a_dead_engine_ends_the_run_with_its_error():
    engine = DyingEngine(trace("a", ["1"] * 4) + trace("b", ["1"] * 4), "b#2")
    await engine.start()
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:4"), wave=1))
    with pytest.raises(EngineError, match="died"):
        await outcomes(runtime, [program("a", 4), program("b", 4)])


async def test_a_cancelled_query_leaves_nothing_in_the_engine():
    class Endless:
        def __init__(self):
            self.running = set()
            self.cut = asyncio.Event()

        async def submit(self, request):
            self.running.add(request.id)
            await self.cut.wait()
            self.running.discard(request.id)
            yield Generation(request.id, "", 5, finish_reason="aborted")

        async def abort(self, ids):
            self.cut.set()
            self.running.difference_update(ids)

        def capacity(self):
            return Capacity(4, "endless", supports_seed=False)

    engine = Endless()
    runtime = Runtime(engine, PerQuery(parse_rule("fixed:4"), wave=3))
    task = asyncio.create_task(runtime.solve(program("q", 4)))
    await asyncio.sleep(0.05)
    assert len(engine.running) == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == set()


def value_of_disagreement(votes):
    """Worth more while answers differ; nothing once three agree."""
    first, second = votes.top_two()
    return 0.0 if first >= 3 and second == 0 else 1.0 / (1 + first - second)


async def test_a_global_budget_goes_where_answers_differ():
    split = ["1", "2"] * 8
    engine = await engine_of(trace("easy", ["1"] * 16) + trace("split", split))
    allocator = GlobalBudget(120, value_of_disagreement, slots=1)
    done = await outcomes(
        Runtime(engine, allocator), [program("easy", 16), program("split", 16)], admission=2
    )
    assert done["easy"].samples <= 2
    assert done["split"].samples >= 10
    assert {o.reason for o in done.values()} == {"budget"}
    assert sum(o.bill.output for o in done.values()) == 120


async def test_a_global_budget_leaves_alone_what_is_worth_nothing_more():
    engine = await engine_of(trace("easy", ["1"] * 16))
    allocator = GlobalBudget(1000, value_of_disagreement, slots=1)
    done = await outcomes(Runtime(engine, allocator), [program("easy", 16)])
    assert (done["easy"].reason, done["easy"].samples) == ("certain", 3)


async def test_a_global_budget_gives_every_query_one_sample_first():
    engine = await engine_of([s for q in "abcde" for s in trace(q, ["1", "2", "3"])])
    allocator = GlobalBudget(1, value_of_disagreement, slots=2)
    done = await outcomes(Runtime(engine, allocator), [program(q, 3) for q in "abcde"], admission=5)
    assert [o.samples for o in done.values()] == [1] * 5
    assert {o.reason for o in done.values()} == {"budget"}


async def test_in_order_the_same_samples_give_the_same_decisions_whatever_the_wave():
    answers = ["1", "2", "1", "1", "1", "1", "1", "1"]
    samples = [
        TraceSample(query="q", sample=i, tokens=10 * (8 - i), answer=a)
        for i, a in enumerate(answers)
    ]
    stops = []
    for wave in (1, 2, 4):
        engine = await engine_of(samples, tokens_per_second=20_000)
        allocator = PerQuery(parse_rule("adaptive-consistency:0.9"), wave=wave)
        runtime = Runtime(engine, allocator, in_order=True)
        outcome = (await outcomes(runtime, [program("q", 8)]))["q"]
        stops.append((outcome.samples, outcome.answer.value))
    assert len(set(stops)) == 1
