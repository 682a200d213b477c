"""What the runtime does for programs that follow up on their work and have last words."""

import asyncio

import pytest

from algorithms.best_of_n import BestOfN
from algorithms.dynasor_cot import DynasorCot, Probing
from algorithms.program import Generation, Progress, Sampling
from algorithms.short_m_of_k import ShortMOfK
from algorithms.task import Task
from certaindex.stopping import parse_rule
from dynasor.allocator import GlobalBudget, PerQuery
from dynasor.engines.base import Capacity
from dynasor.engines.replay import ReplayEngine
from dynasor.rewards.engine import RewardedEngine
from dynasor.rewards.function import FunctionReward
from dynasor.runtime import Runtime
from dynasor.traces import TraceSample
from tests.algorithms.conftest import boxed, fresh_groups


class ChainEngine:
    """A chain of 10 tokens a tick that never answers, probes and last words as a test says."""

    def __init__(self, probes, last="7}", ticks=30, last_waits=False):
        self.probes, self.last, self.ticks, self.last_waits = probes, last, ticks, last_waits
        self.asked = []
        self.cut = set()

    async def submit(self, request):
        self.asked.append(request)
        if request.kind == "step":
            for tick in range(1, self.ticks):
                await asyncio.sleep(0.005)
                if request.id in self.cut:
                    yield Generation(request.id, "t" * tick, 10 * tick, finish_reason="aborted")
                    return
                yield Progress(request.id, "t" * tick, 10 * tick)
            yield Generation(request.id, "t" * self.ticks, 10 * self.ticks, finish_reason="length")
            return
        while self.last_waits and request.kind == "answer" and request.id not in self.cut:
            await asyncio.sleep(0.005)
        if request.id in self.cut:
            yield Generation(request.id, "", 0, finish_reason="aborted")
            return
        text = self.last if request.kind == "answer" else self.probes.pop(0)
        yield Generation(request.id, text, 2)

    async def abort(self, ids):
        self.cut.update(ids)

    def hint(self, gang, hints):
        pass

    def capacity(self):
        return Capacity(8, "m", supports_seed=True)


def chain(max_tokens=300):
    return DynasorCot(
        Task(
            "q",
            "what?",
            sampling=Sampling(max_tokens=max_tokens),
            extract=boxed,
            groups=fresh_groups(),
        ),
        probing=Probing(interval=10, question="\\boxed{", closing="</think>\\boxed{"),
    )


@pytest.mark.parametrize("in_order", [False, True])
async def test_probes_run_beside_the_chain_and_stop_it_and_it_answers(in_order):
    engine = ChainEngine(["1}", "", "7}", "7}", "7}", *["9}"] * 20])
    runtime = Runtime(engine, PerQuery(parse_rule("stable:3"), wave=1), in_order=in_order)
    outcome = await runtime.solve(chain())
    assert (outcome.reason, outcome.answer.value, outcome.samples) == ("certain", "7", 5)
    assert outcome.certainty.value == 1.0
    assert engine.asked[0].id in engine.cut, "the chain was cut"
    assert [r.kind for r in engine.asked].count("answer") == 1
    assert outcome.bill.finished == 5 * 2 + 2, "probes and last words"
    assert 50 <= outcome.bill.cut < 300, "the chain so far"


async def test_a_chain_at_the_end_of_its_tokens_is_asked_for_its_answer():
    engine = ChainEngine([f"{n}}}" for n in range(99)], last="5}", ticks=4)
    outcome = await Runtime(engine, PerQuery(parse_rule("stable:3"), wave=1)).solve(chain())
    assert (outcome.reason, outcome.answer.value) == ("complete", "5")


async def test_a_deadline_leaves_no_time_for_last_words():
    engine = ChainEngine([f"{n}}}" for n in range(99)], last="5}", ticks=999)
    runtime = Runtime(engine, PerQuery(parse_rule("stable:3"), wave=1))
    outcome = await runtime.solve(chain(), deadline=0.1)
    assert outcome.reason == "deadline"
    assert outcome.answer.value == engine_last_probe(outcome)
    assert "answer" not in [r.kind for r in engine.asked]


def engine_last_probe(outcome):
    return str(outcome.samples - 1)


async def test_a_deadline_during_the_last_words_ends_them():
    engine = ChainEngine(["7}"] * 99, last_waits=True)
    runtime = Runtime(engine, PerQuery(parse_rule("stable:3"), wave=1))
    outcome = await runtime.solve(chain(), deadline=0.3)
    assert (outcome.reason, outcome.answer.value) == ("certain", "7")


async def test_one_budget_for_all_lets_a_chain_have_its_probes():
    engine = ChainEngine([f"{n}}}" for n in range(99)], last="5}", ticks=5)
    allocator = GlobalBudget(1000, lambda votes: 1.0, slots=4)
    outcome = await Runtime(engine, allocator).solve(chain())
    assert (outcome.reason, outcome.answer.value) == ("complete", "5")
    assert outcome.samples >= 3, "the last probe and the end of the chain come together"


def trace(tokens, answers):
    return [
        TraceSample(query="q", sample=i, tokens=n, answer=a)
        for i, (n, a) in enumerate(zip(tokens, answers, strict=True))
    ]


async def test_the_first_that_finish_answer_and_the_rest_is_cut():
    engine = ReplayEngine(
        trace([20, 100_000, 10, 100_000], ["1", "2", "1", "2"]), tokens_per_second=500
    )
    await engine.start()
    program = ShortMOfK(
        Task("q", "what?", sampling=Sampling(), extract=boxed, groups=fresh_groups()),
        first=2,
        samples=4,
    )
    outcome = await Runtime(engine, PerQuery(parse_rule("never"), wave=4)).solve(program)
    assert (outcome.reason, outcome.answer.value, outcome.samples) == ("complete", "1", 2)
    assert outcome.bill.finished == 30
    assert 0 < outcome.bill.cut < 1000


def best_of(samples):
    return BestOfN(
        Task("q", "what?", sampling=Sampling(), extract=boxed, groups=fresh_groups()),
        samples=samples,
    )


async def rewarded(answers, function):
    engine = RewardedEngine(
        ReplayEngine(trace([10] * len(answers), answers)), FunctionReward(function)
    )
    await engine.start()
    return engine


@pytest.mark.parametrize("wave", [1, 2, 4])
async def test_rewards_come_from_the_reward_model_and_are_no_output_tokens(wave):
    asked = []

    def score(prompt, text):
        asked.append((prompt, text))
        return 0.9 if "7" in text else 0.2

    engine = await rewarded(["8", "7", "8", "8"], score)
    runtime = Runtime(engine, PerQuery(parse_rule("never"), wave), in_order=True)
    outcome = await runtime.solve(best_of(4))
    assert (outcome.reason, outcome.answer.value, outcome.samples) == ("complete", "7", 4)
    assert outcome.bill.output == 40
    assert sorted(asked) == [("what?", "\\boxed{7}"), ("what?", "\\boxed{8}")], "each text once"


@pytest.mark.parametrize("reward", [float("nan"), 1.5, -0.1])
async def test_a_reward_that_is_none_fails_its_sample_only(reward):
    engine = await rewarded(["8", "7"], lambda prompt, text: 0.5 if "7" in text else reward)
    outcome = await Runtime(engine, PerQuery(parse_rule("never"), wave=1)).solve(best_of(2))
    assert (outcome.answer.value, outcome.samples, outcome.failed) == ("7", 1, 1)
    assert "reward must be between 0 and 1" in outcome.errors[0]


async def test_a_reward_model_that_raises_is_reported_and_ends_nothing_else():
    def broken(prompt, text):
        raise RuntimeError("out of memory")

    engine = await rewarded(["8", "7"], broken)
    outcome = await Runtime(engine, PerQuery(parse_rule("never"), wave=2)).solve(best_of(2))
    assert (outcome.reason, outcome.failed) == ("failed", 2)
    assert outcome.errors[0] == "reward: out of memory"


async def test_a_score_that_is_cut_ends_as_aborted_and_others_go_on():
    release = asyncio.Event()

    class Slow(FunctionReward):
        async def score(self, attempts):
            await release.wait()
            return await super().score(attempts)

    engine = RewardedEngine(ReplayEngine(trace([1], ["1"])), Slow(lambda p, t: 0.5))
    await engine.start()
    program = best_of(2)
    a, b = program.propose(2)
    for request in (a, b):
        program.receive(Generation(request.id, request.id, 1))
    scores = program.follow_ups()

    async def end(request):
        return [event async for event in engine.submit(request)][-1]

    tasks = [asyncio.create_task(end(score)) for score in scores]
    await asyncio.sleep(0.01)
    await engine.abort([scores[0].id])
    release.set()
    first, second = await asyncio.gather(*tasks)
    assert (first.finish_reason, first.reward) == ("aborted", None)
    assert (second.finish_reason, second.reward) == ("stop", 0.5)


async def test_a_program_that_has_nothing_to_try_is_complete_and_does_not_hang():
    class Nothing(BestOfN):
        def propose(self, n):
            return []

    engine = await rewarded(["1"], lambda p, t: 0.5)
    idle = Nothing(Task("q", "what?", Sampling(), boxed, fresh_groups()), samples=1)
    runtime = Runtime(engine, PerQuery(parse_rule("never"), wave=1))
    outcome = await asyncio.wait_for(runtime.solve(idle), 5)
    assert outcome.reason == "complete"
