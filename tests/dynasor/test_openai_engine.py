"""The engine for OpenAI-compatible servers, against a real one: vLLM with the embedded model."""

import asyncio
import json

import openai
import pytest

from algorithms.program import Generation, Progress, Request, Sampling
from certaindex.answers import extract
from dynasor.engines.openai import OpenAIEngine
from dynasor.errors import EngineError
from dynasor.programs import ALGORITHMS
from tests.vllm_server import SLOTS

# The first test waits for the server.
pytestmark = pytest.mark.timeout(600)

QUESTION = (
    {
        "role": "user",
        "content": "Sara has 20 apples. The number doubles. She sells 17. "
        "How many apples does Sara have now?",
    },
)


@pytest.fixture
async def engine(vllm_server):
    engine = OpenAIEngine([vllm_server.url], timeout=120)
    await engine.start()
    yield engine
    await engine.close()


def ask(id="q#0", prompt=QUESTION, prefix="", report_every=None, **sampling):
    sampling = Sampling(**{"temperature": 0.0, "max_tokens": 200, **sampling})
    return Request(id, "q", prompt, sampling, prefix=prefix, report_every=report_every)


async def end_of(engine, request):
    return [event async for event in engine.submit(request)][-1]


async def test_it_finds_the_model_and_answers_a_question(engine, vllm_server):
    assert engine.capacity().model == vllm_server.model
    before = vllm_server.metric("vllm:generation_tokens_total")
    events = [event async for event in engine.submit(ask(report_every=5))]
    *progress, end = events
    assert isinstance(end, Generation)
    assert (end.finish_reason, end.error, end.confidence) == ("stop", None, None)
    assert extract(end.text, "boxed") == "23"
    assert end.tokens == vllm_server.metric("vllm:generation_tokens_total") - before
    assert end.prompt_tokens > 10
    assert progress  # how many depends on how much of the stream comes at once
    assert all(isinstance(event, Progress) for event in progress)
    assert [event.tokens for event in progress] == sorted({event.tokens for event in progress})
    assert all(end.text.startswith(event.text) for event in progress)


async def test_the_longest_output_and_a_stop_text_end_it(engine):
    cut = await end_of(engine, ask(max_tokens=7))
    assert (cut.finish_reason, cut.tokens) == ("length", 7)
    stopped = await end_of(engine, ask(stop=("boxed",)))
    assert stopped.finish_reason == "stop"
    assert "boxed" not in stopped.text


async def test_eight_at_once_end_each_for_itself(engine):
    requests = [ask(f"q#{n}", max_tokens=5 + n) for n in range(8)]
    ends = await asyncio.gather(*(end_of(engine, request) for request in requests))
    assert [end.request for end in ends] == [request.id for request in requests]
    assert [end.tokens for end in ends] == [5 + n for n in range(8)]


async def test_a_prompt_seen_before_is_reported_as_cached(engine):
    long = ({"role": "user", "content": "She buys 4 more. " * 30},)
    first = await end_of(engine, ask(prompt=long, max_tokens=2))
    again = await end_of(engine, ask(prompt=long, max_tokens=2))
    assert first.cached_tokens < again.cached_tokens <= again.prompt_tokens


async def test_a_text_prompt_and_a_prefix_go_on_where_they_end(engine):
    whole = await end_of(engine, ask())
    first_line, rest = whole.text.split("\n", 1)
    chat = await end_of(engine, ask(prefix=f"{first_line}\n"))
    assert chat.text == rest
    assert chat.prompt_tokens > whole.prompt_tokens
    raw = await end_of(engine, ask(prompt="1 + 1", prefix=" =", max_tokens=3))
    assert (raw.finish_reason, raw.tokens) == ("length", 3)


@pytest.mark.parametrize("prompt", [QUESTION, "1 + 1 ="])
async def test_confidence_has_one_value_a_token(engine, prompt):
    request = ask(prompt=prompt, top_logprobs=5, report_every=4, max_tokens=12)
    *progress, end = [event async for event in engine.submit(request)]
    assert len(end.confidence) == end.tokens == 12
    assert all(value > 0 for value in end.confidence)
    assert [len(event.confidence) for event in progress] == [event.tokens for event in progress]
    assert list(progress[0].confidence) == list(end.confidence)[: progress[0].tokens]


@pytest.mark.parametrize("prompt", [QUESTION, "1 + 1 ="])
async def test_likelihood_has_one_value_a_token(engine, prompt):
    end = await end_of(engine, ask(prompt=prompt, logprobs=True, max_tokens=12))
    assert len(end.logprobs) == end.tokens == 12
    assert all(value <= 0 for value in end.logprobs)
    assert end.confidence is None


async def test_cutting_frees_the_server(engine, vllm_server):
    before = vllm_server.metric("vllm:generation_tokens_total")
    # Outside of its training the model repeats itself to the end of its context.
    requests = [ask(f"q#{n}", prompt="hello", max_tokens=980, report_every=1) for n in range(4)]

    async def cut_at_first_news(request):
        async for event in engine.submit(request):
            if isinstance(event, Progress):
                await engine.abort([request.id])
        return event

    ends = await asyncio.gather(*map(cut_at_first_news, requests))
    assert {end.finish_reason for end in ends} == {"aborted"}
    assert all(1 <= end.tokens < 980 and end.text for end in ends)
    while vllm_server.metric("vllm:num_requests_running"):
        await asyncio.sleep(0.05)
    # It would have generated them to their end if it had not noticed.
    assert vllm_server.metric("vllm:generation_tokens_total") - before < 4 * 980


async def test_a_bad_request_fails_alone(engine):
    too_long = ask("q#0", prompt="hello " * 3000)
    bad, good = await asyncio.gather(end_of(engine, too_long), end_of(engine, ask("q#1")))
    assert bad.finish_reason == "error"
    assert "context" in bad.error
    assert "\n" not in bad.error
    assert good.finish_reason == "stop"


async def test_a_wrong_model_is_named_with_those_there_are(vllm_server):
    engine = OpenAIEngine([vllm_server.url], model="gpt-9")
    with pytest.raises(EngineError, match=r"no model 'gpt-9'; it has embedded"):
        await engine.start()
    await engine.close()


QUICK = ("dynasor-cot", "rebase")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALGORITHMS],
)
def test_bench_tells_of_every_program_what_it_cost_and_why_it_stopped(
    run_here, vllm_server, tmp_path, name
):
    asked = [
        *("bench", "embedded", "--limit", 2, "-n", 4, "--max-tokens", 120, "--json"),
        *("--base-url", vllm_server.url, "--algorithm", name),
        *("--set", "algorithm.cot.interval=16", "--set", "algorithm.search.delimiter=\n"),
        *("--set", "algorithm.reward.kind=function"),
        *("--set", "algorithm.reward.model=tests.dynasor.test_programs_live:true_so_far"),
    ]
    done = run_here(*asked, "--out", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["suite"], told["algorithm"]) == ("embedded", name)
    full, stopped = told["systems"]
    assert stopped["tokens_ratio"] == pytest.approx(stopped["tokens"] / full["tokens"])
    for system in (full, stopped):
        assert 0 <= system["accuracy"] <= 1
        assert system["tokens"] > 0
        assert 0 <= system["samples"] <= (120 / 16 if name == "dynasor-cot" else 4)
        assert sum(system["reasons"].values()) == system["queries"] == 2
    alone = run_here(*asked, "--no-certaindex", "--out", tmp_path / "full")
    assert alone.returncode == 0, alone.stderr
    (system,) = json.loads(alone.stdout)["systems"]
    assert system["name"] == full["name"]
    assert set(system["reasons"]) <= {"complete", "certain"}


async def test_any_client_can_use_gangs_of_the_server(vllm_server):
    """The official client, hints in `vllm_xargs`, behind a full batch."""
    for _ in range(4):  # on a busy machine the batch may be over before all have come
        order = await _race_at_the_server(vllm_server)
        if order:
            break
    assert order, "in no attempt was the batch full while all came"
    assert order.index("short") < order.index("long")
    assert set(order) == {"long", "short", "broken"}


async def _race_at_the_server(vllm_server):
    """Gangs in the order of their first token, or nothing where that shows nothing."""
    client = openai.AsyncOpenAI(base_url=vllm_server.url, api_key="none", timeout=300)
    order = []

    async def occupy(tokens):
        # Not as a stream: the server shall have time for those that come.
        await client.completions.create(
            model=vllm_server.model,
            prompt="Tom has",
            max_tokens=tokens,
            temperature=0,
            extra_body={"ignore_eos": True, "vllm_xargs": {"gang": "busy"}},
        )

    async def ask(gang, tokens, hints):
        stream = await client.completions.create(
            model=vllm_server.model,
            prompt="Tom has",
            max_tokens=tokens,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True, "vllm_xargs": {"gang": gang, **hints}},
        )
        async for _ in stream:
            if gang not in order:
                order.append(gang)

    # They end one after the other, so that one place after the other becomes free.
    busy = [asyncio.create_task(occupy(900 - 20 * index)) for index in range(SLOTS)]

    async def until(name, least):
        # In a thread: the requests are still being sent.
        while await asyncio.to_thread(vllm_server.metric, name) < least:
            if any(task.done() for task in busy):
                return False
            await asyncio.sleep(0.05)
        return True

    shows = await until("vllm:num_requests_running", SLOTS)
    hints = {"long": 9000, "short": 90, "broken": "no number"}
    rest = [asyncio.create_task(ask(gang, 40, {"gang_tokens": hints[gang]})) for gang in hints]
    shows = shows and await until("vllm:num_requests_waiting", len(rest))
    await asyncio.gather(*busy, *rest)
    await client.close()
    return order if shows else []
