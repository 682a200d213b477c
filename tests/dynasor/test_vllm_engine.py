"""The vLLM engine on the real vLLM and the embedded model."""

import asyncio

import pytest

from algorithms.program import Generation, Progress, Request, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.answers import extract
from certaindex.early_cut import EarlyCut
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.groups import ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.engines.vllm import VLLMEngine
from dynasor.errors import EngineError
from dynasor.runtime import Runtime
from dynasor.scheduling.gang import Hints


def request(name, question, **more):
    sampling = Sampling(**{"max_tokens": 400, **more.pop("sampling", {})})
    return Request(name, "q", ({"role": "user", "content": question},), sampling, **more)


async def run(engine, asked):
    events = [event async for event in engine.submit(asked)]
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert isinstance(events[-1], Generation)
    return events[-1]


async def test_a_sample_ends_in_a_box_and_its_tokens_are_counted(vllm_engine, easy_rows):
    done = await run(vllm_engine, request("one", easy_rows[0]["question"]))
    assert done.finish_reason == "stop"
    assert extract(done.text, "boxed") is not None
    assert 5 < done.tokens < 100
    assert done.prompt_tokens > 10


async def test_siblings_share_the_prompt(vllm_engine, long_question):
    await run(vllm_engine, request("first", long_question, sampling={"max_tokens": 1}))
    await vllm_engine.counters(reset=True)
    again = await run(vllm_engine, request("second", long_question, sampling={"max_tokens": 1}))
    counters = await vllm_engine.counters()
    assert again.prompt_tokens > 64
    assert again.cached_tokens >= 64, "whole blocks of 32 tokens"
    assert counters["prefix_queries"] == again.prompt_tokens
    assert counters["prefix_hits"] == again.cached_tokens


async def test_a_seed_gives_the_same_text_alone_and_in_a_crowd(vllm_engine, long_question):
    alone = await run(vllm_engine, request("alone", long_question, sampling={"seed": 7}))
    crowd = await asyncio.gather(
        *(
            run(vllm_engine, request(f"c{seed}", long_question, sampling={"seed": seed}))
            for seed in range(16)
        )
    )
    assert crowd[7].text == alone.text
    assert len({sample.text for sample in crowd}) > 4, "other seeds, other texts"


async def test_a_seed_does_not_change_the_distribution(vllm_engine):
    """First tokens of 400 seeded and 400 free samples: a two-sample chi-square test."""
    from scipy.stats import chi2_contingency

    async def first_tokens(label, seeded):
        texts = await asyncio.gather(
            *(
                run(
                    vllm_engine,
                    request(
                        f"{label}{i}",
                        "Tom has",
                        sampling={"max_tokens": 1, "seed": i if seeded else None},
                    ),
                )
                for i in range(400)
            )
        )
        return [sample.text for sample in texts]

    seeded, free = await first_tokens("s", True), await first_tokens("f", False)
    kinds = sorted(set(seeded) | set(free))
    common = [k for k in kinds if seeded.count(k) + free.count(k) >= 20]
    table = [[texts.count(k) for k in common] for texts in (seeded, free)]
    for row, texts in zip(table, (seeded, free), strict=True):
        row.append(len(texts) - sum(row) + 1)
    assert len(common) >= 2
    assert chi2_contingency(table).pvalue > 1e-4


async def test_abort_returns_the_partial_text_and_frees_the_kv(vllm_engine):
    names = [f"long{i}" for i in range(16)]

    async def watch(name):
        last = None
        async for event in vllm_engine.submit(
            request(
                name,
                "zq",
                sampling={"temperature": 2.0, "max_tokens": 990},
                report_every=2,
            )
        ):
            if isinstance(event, Progress):
                await vllm_engine.abort([name])
            last = event
        return last

    ends = await asyncio.gather(*(watch(name) for name in names))
    cut = [end for end in ends if end.finish_reason == "aborted"]
    assert cut
    assert all(0 < end.tokens < 990 for end in cut)
    # vLLM refuses to reset its cache while any request holds a block.
    assert await vllm_engine._engine.reset_prefix_cache()


async def test_confidence_of_each_token_where_asked_for(vllm_engine, easy_rows):
    asked = request("sure", easy_rows[0]["question"], sampling={"top_logprobs": 5})
    done = await run(vllm_engine, asked)
    assert len(done.confidence) == done.tokens
    assert all(value > 0 for value in done.confidence)


@pytest.mark.parametrize("seed", [None, 7])
async def test_likelihood_of_each_token_where_asked_for(vllm_engine, easy_rows, seed):
    sampling = {"logprobs": True, "seed": seed}
    done = await run(vllm_engine, request(f"p{seed}", easy_rows[0]["question"], sampling=sampling))
    assert len(done.logprobs) == done.tokens
    assert all(value <= 0 for value in done.logprobs)
    assert len(set(done.logprobs)) > 3
    assert done.confidence is None


async def test_likelihoods_come_in_parts_with_progress(vllm_engine, easy_rows):
    sampling = {"logprobs": True, "top_logprobs": 2, "seed": 7}
    asked = request("parts", easy_rows[0]["question"], sampling=sampling, report_every=4)
    done = await run(vllm_engine, asked)
    assert len(done.logprobs) == len(done.confidence) == done.tokens


async def test_a_prefix_is_gone_on_with(vllm_engine, easy_rows):
    question = easy_rows[0]["question"]
    done = await run(vllm_engine, request("p", question, prefix="The answer is \\boxed{"))
    assert done.text.rstrip(".").endswith("}")
    assert "boxed" not in done.text


async def test_a_request_that_does_not_fit_fails_alone(vllm_engine, easy_rows):
    bad, good = await asyncio.gather(
        run(vllm_engine, request("bad", "x " * 3000)),
        run(vllm_engine, request("good", easy_rows[1]["question"])),
    )
    assert bad.finish_reason == "error"
    assert "1024" in bad.error
    assert good.finish_reason == "stop"


async def test_a_query_end_to_end(vllm_engine, easy_rows):
    with AnswerEquivalence() as equivalence:
        runtime = Runtime(vllm_engine, PerQuery(parse_rule("certaindex:1.0,min=3"), wave=4))
        right = 0
        for row in easy_rows[:5]:
            program = SelfConsistency(
                Task(
                    row["id"],
                    ({"role": "user", "content": row["question"]},),
                    sampling=Sampling(max_tokens=400),
                    extract=lambda text: extract(text, "boxed"),
                    groups=AnswerGroups(equivalence),
                ),
                samples=16,
            )
            outcome = await runtime.solve(program)
            right += outcome.answer.value == row["answer"]
            assert outcome.samples >= 3
            assert outcome.bill.output > 0
    assert right >= 4
    assert await vllm_engine._engine.reset_prefix_cache(), "cut samples left the engine"


class Race:
    """Requests of gangs: in which order do they start?"""

    def __init__(self, engine):
        self.engine = engine
        self.order = []
        self.tasks = []

    def enter(self, gang, members, tokens, hints=None):
        if hints is not None:
            self.engine.hint(gang, hints)
        for index in range(members):
            self.tasks.append(asyncio.create_task(self._run(gang, index, tokens)))

    async def _run(self, gang, index, tokens):
        sampling = Sampling(max_tokens=tokens, temperature=0.0)
        asked = Request(f"{gang}{index}", gang, f"Count {index}:", sampling, report_every=1)
        async for event in self.engine.submit(asked):
            if gang not in self.order and event.tokens:
                self.order.append(gang)


async def test_what_waits_goes_by_expected_work_and_news_change_it(vllm_engine):
    race = Race(vllm_engine)
    await vllm_engine._engine.pause_generation(mode="keep", clear_cache=False)
    race.enter("long", 16, 30, Hints(tokens=5000))
    race.enter("middle", 16, 30, Hints(tokens=2000))
    race.enter("short", 16, 30, Hints(tokens=100))
    while (await vllm_engine.counters())["waiting"] < 48:
        await asyncio.sleep(0.005)
    vllm_engine.hint("long", Hints(tokens=10))
    await asyncio.sleep(0.1)  # the news are sent by a task of its own
    await vllm_engine._engine.resume_generation()
    await asyncio.gather(*race.tasks)
    assert race.order == ["long", "short", "middle"]


async def test_a_stopped_query_leaves_the_engine_within_two_steps(vllm_engine):
    """Cut by the front end while it decodes: members that run and members that wait."""
    race = Race(vllm_engine)
    race.enter("cut", 24, 400)
    while (await vllm_engine.counters())["running"] < 16:
        await asyncio.sleep(0.01)
    race.enter("other", 4, 60)
    await vllm_engine.abort([f"cut{index}" for index in range(24)])
    # The engine hears of both between two steps, in this order. So nothing of the query is left after
    # the step that was under way; how many more go by until the answer is here says nothing.
    after = await vllm_engine.counters()
    assert after["running"] + after["waiting"] <= 4
    await asyncio.gather(*race.tasks)
    assert (await vllm_engine.counters())["kv_now"] == 0


async def test_the_scheduler_counts_steps(vllm_engine, easy_rows):
    await vllm_engine.counters(reset=True)
    await vllm_engine.steps()
    await run(vllm_engine, request("counted", easy_rows[0]["question"]))
    counters = await vllm_engine.counters(reset=True)
    steps = await vllm_engine.steps()
    assert counters["steps"] > 5
    assert counters["running_mean"] == pytest.approx(1)
    assert 0 < counters["kv_peak"] < 0.1
    assert all(seconds > 0 for seconds, *_ in steps)
    assert sum(decoding for _, decoding, _, _ in steps) == len(steps) - 1
    assert (await vllm_engine.counters())["steps"] == 0


async def test_vllms_own_scheduler_says_that_it_counts_nothing():
    engine = VLLMEngine("unused")
    with pytest.raises(EngineError, match=r'scheduler\.policy = "vllm"'):
        await engine.counters()


async def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"no model at .*config.json"):
        await VLLMEngine(str(tmp_path)).start()


async def test_progress_comes_every_so_many_tokens_with_their_likelihoods(vllm_engine, easy_rows):
    sampling = {"logprobs": True, "temperature": 0.0}
    asked = request("likely", easy_rows[0]["question"], sampling=sampling, report_every=4)
    *progress, done = [event async for event in vllm_engine.submit(asked)]
    assert 1 <= len(progress) <= done.tokens / 4
    assert all(event.tokens >= 4 * n for n, event in enumerate(progress, 1))
    assert progress[-1].logprobs is not None
    quiet = await run(vllm_engine, request("quiet", easy_rows[0]["question"], sampling=sampling))
    assert (done.text, done.tokens) == (quiet.text, quiet.tokens)


async def test_lost_samples_leave_the_engine_and_the_spared_one_answers(vllm_engine, easy_rows):
    for row in easy_rows[:3]:
        program = SelfConsistency(
            Task(
                f"cut/{row['id']}",
                ({"role": "user", "content": row["question"]},),
                sampling=Sampling(max_tokens=400, logprobs=True),
                extract=lambda text: extract(text, "boxed"),
                groups=AnswerGroups(ExactEquivalence()),
            ),
            samples=4,
            cut=EarlyCut(floor=0.0, every=2),
        )
        runtime = Runtime(vllm_engine, PerQuery(parse_rule("fixed:4"), wave=4))
        outcome = await runtime.solve(program)
        assert outcome.answer.value is not None
        assert (outcome.samples, program.votes().answered) == (4, 1)
        assert outcome.bill.finished > 0
        assert not outcome.failed
