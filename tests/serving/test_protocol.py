"""What clients of OpenAI's API send and get, with the official client on a real socket."""

import asyncio

import openai
import pytest

from serving.openai_responses import ChatCompletion, TextCompletion
from tests.serving.running_server import MODEL, QUESTION, running, settings
from tests.serving.scripted_engine import ScriptedEngine, boxed

SC = f"{MODEL}:self-consistency"


async def test_a_plain_request_is_one_request_with_the_messages_as_they_are():
    engine = ScriptedEngine(boxed("4"))
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": "two"},
        *QUESTION,
    ]
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=MODEL,
            messages=turns,
            temperature=0.5,
            top_p=0.9,
            max_tokens=7,
            stop=["x"],
            user="u",
            metadata={"a": "b"},
            presence_penalty=0,
            seed=None,
        )
    (request,) = engine.requests
    assert [turn["content"] for turn in request.prompt] == [
        "be short",
        "one",
        "two",
        QUESTION[0]["content"],
    ]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 0.9, 7)
    assert sampling.stop == ("x",)
    assert answer.choices[0].message.content == "so it is \\boxed{4}"
    assert answer.usage.prompt_tokens == 7
    assert answer.usage.completion_tokens == 4
    assert answer.dynasor["algorithm"] == "none"
    assert engine.hints[answer.id].tokens is not None  # its place in the order is predicted


async def test_an_answer_that_the_client_has_begun_is_gone_on_with():
    engine = ScriptedEngine(boxed("4"))
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=MODEL,
            messages=[*QUESTION, {"role": "assistant", "content": "two and two, "}],
            stop=["}"],
            extra_body={
                "continue_final_message": True,
                "add_generation_prompt": False,
                "include_stop_str_in_output": True,
            },
        )
    (request,) = engine.requests
    assert [turn["role"] for turn in request.prompt] == ["user"]
    assert request.prefix == "two and two, "
    assert request.sampling.keep_stop
    assert answer.choices[0].message.content == "so it is \\boxed{4}", (
        "what was sent is not told again"
    )


async def test_several_choices_are_one_gang():
    engine = ScriptedEngine(lambda request: f"choice {request.index}")
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(model=MODEL, messages=QUESTION, n=3)
    assert [choice.message.content for choice in answer.choices] == [
        "choice 0",
        "choice 1",
        "choice 2",
    ]
    assert len({request.program for request in engine.requests}) == 1


async def test_a_stream_of_several_choices_is_each_text_in_pieces():
    engine = ScriptedEngine(lambda request: f"this is choice {request.index}")
    texts = ["", "", ""]
    ends = {}
    async with running(engine) as server:
        stream = await server.openai().chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            n=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
            usage = chunk.usage
    assert texts == [f"this is choice {index}" for index in range(3)]
    assert ends == dict.fromkeys(range(3), "stop")
    assert usage.completion_tokens == 12


@pytest.mark.parametrize(
    "ask",
    [
        {"model": SC},
        {"model": MODEL, "reasoning_effort": "medium"},
        {"model": MODEL, "extra_body": {"dynasor": {"algorithm": "self-consistency"}}},
        {"model": MODEL, "extra_body": {"dynasor": {"budget": {"samples": 16}}}},
    ],
)
async def test_reasoning_can_be_asked_for_in_each_way_and_stops_when_certain(ask):
    engine = ScriptedEngine(boxed("4"))
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(messages=QUESTION, **ask)
    report = answer.dynasor
    assert (report["answer"], report["budget"], report["stopped"]) == ("4", 16, "certain")
    assert report["votes"] == {"4": report["samples"]}
    assert report["samples"] < 16
    assert report["tokens"]["saved"] > 0
    spent = report["tokens"]["answer"] + report["tokens"]["other_samples"] + report["tokens"]["cut"]
    assert answer.usage.completion_tokens == spent
    assert answer.choices[0].message.content == "so it is \\boxed{4}"


async def test_effort_none_is_a_plain_request_even_where_the_default_reasons():
    engine = ScriptedEngine()
    async with running(engine, config=settings(default_effort="low")) as server:
        client = server.openai()
        thought = await client.chat.completions.create(model=MODEL, messages=QUESTION)
        plain = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, reasoning_effort="none"
        )
    assert thought.dynasor["algorithm"] == "self-consistency"
    assert plain.dynasor["algorithm"] == "none"


async def test_a_reasoning_stream_tells_news_that_a_plain_client_does_not_see():
    engine = ScriptedEngine(boxed("4"), pause=0.05)
    text, states, reports = "", [], []
    async with running(engine) as server:
        stream = await server.openai().chat.completions.create(
            model=SC,
            messages=QUESTION,
            stream=True,
            extra_body={"dynasor": {"wave": 1, "stop": {"rule": "fixed:6"}}},
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""  # as every tutorial does
            if (report := getattr(chunk, "dynasor", None)) is not None:
                states.append(report["state"])
                reports.append(report["samples"])
    assert text == "so it is \\boxed{4}"
    assert states[-1] == "done"
    assert states.count("running") >= 2
    assert reports == sorted(reports)


async def test_the_budget_of_tokens_ends_a_query():
    engine = ScriptedEngine(lambda request: f"a b \\boxed{{{request.index}}}")
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=SC,
            messages=QUESTION,
            extra_body={
                "dynasor": {"wave": 1, "budget": {"tokens": 8}, "stop": {"rule": "fixed:16"}}
            },
        )
    assert answer.dynasor["stopped"] == "budget"
    assert answer.dynasor["best_so_far"]
    assert answer.usage.completion_tokens == 9
    assert all(request.sampling.max_tokens <= 8 for request in engine.requests)


@pytest.mark.parametrize("limit", [{"deadline_ms": 1000}, {"budget": {"seconds": 1}}])
async def test_a_deadline_gives_the_best_answer_so_far_marked_as_such(limit):
    engine = ScriptedEngine(lambda request: None if request.index else "it is \\boxed{9}")
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=SC, messages=QUESTION, extra_body={"dynasor": {"wave": 2, **limit}}
        )
        await server.idle()
    assert answer.dynasor["answer"] == "9"
    assert (answer.dynasor["stopped"], answer.dynasor["best_so_far"]) == ("deadline", True)
    assert answer.choices[0].finish_reason == "length"
    assert not engine.running


async def test_a_plain_answer_cut_by_its_deadline_is_given_as_far_as_it_got():
    engine = ScriptedEngine(lambda request: None, pause=0.001)
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=MODEL, messages=QUESTION, extra_body={"dynasor": {"deadline_ms": 200}}
        )
    assert answer.choices[0].message.content.startswith("hm hm")
    assert answer.choices[0].finish_reason == "length"


async def test_a_question_without_a_readable_answer_still_gets_a_text():
    engine = ScriptedEngine(lambda request: "roses are red")
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=MODEL, messages=QUESTION, reasoning_effort="minimal"
        )
    assert answer.dynasor["answer"] is None
    assert answer.choices[0].message.content == "roses are red"


async def test_completions_whole_and_streamed():
    engine = ScriptedEngine(lambda request: "and so on")
    async with running(engine) as server:
        client = server.openai()
        whole = await client.completions.create(model=MODEL, prompt="Once", max_tokens=5)
        stream = await client.completions.create(model=MODEL, prompt=["Once"], stream=True)
        parts = [chunk.choices[0].text async for chunk in stream]
    assert whole.choices[0].text == "and so on"
    assert "".join(parts) == "and so on"
    assert engine.requests[0].prompt == "Once"


async def test_models_are_listed_with_their_algorithms():
    async with running(ScriptedEngine()) as server:
        client = server.openai()
        assert [model.id async for model in client.models.list()] == [
            MODEL,
            SC,
            *(f"{MODEL}:{name}" for name in ("dynasor-cot", "deepconf", "short-m-of-k")),
            f"{MODEL}:agentwrite",
        ]
        assert (await client.models.retrieve(SC)).id == SC
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")


async def test_answers_fit_the_models_of_the_documentation():
    body = {"model": SC, "messages": QUESTION}
    async with running(ScriptedEngine()) as server, server.http() as http:
        chat = await http.post("/v1/chat/completions", json=body)
        text = await http.post("/v1/completions", json={"model": MODEL, "prompt": "x"})
    ChatCompletion.model_validate_json(chat.content, strict=True)
    TextCompletion.model_validate_json(text.content, strict=True)


async def test_the_synchronous_client_works_too(shared):
    def ask():
        with openai.OpenAI(base_url=f"{shared.root}/v1", api_key="none") as client:
            whole = client.chat.completions.create(model=SC, messages=QUESTION)
            pieces = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
            return whole.choices[0].message.content, text

    assert await asyncio.to_thread(ask) == ("so it is \\boxed{4}",) * 2


async def test_log_probabilities_are_those_of_the_engines_tokens_whole_and_streamed(shared):
    ask = {"model": MODEL, "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    client = shared.openai()
    whole = (await client.chat.completions.create(**ask)).choices[0].logprobs.content
    streamed = []
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    text = await client.completions.create(model=MODEL, prompt="x", logprobs=1)
    assert [token.token for token in whole] == ["so ", "it ", "is ", "\\boxed{4}"]
    assert streamed == whole
    assert bytes(whole[0].bytes) == b"so "
    assert [len(token.top_logprobs) for token in whole] == [2] * 4
    assert text.choices[0].logprobs.text_offset == [0, 3, 6, 9]
    assert text.choices[0].logprobs.token_logprobs == [-0.5] * 4
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        await client.chat.completions.create(model=SC, messages=QUESTION, logprobs=True)
