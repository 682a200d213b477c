"""Every reasoning program behind the endpoint: asked for, set, refused, streamed, and billed."""

import asyncio

import openai
import pytest

from certaindex.equivalence import AnswerEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import PerQuery
from dynasor.bench.offline import make_program
from dynasor.config import load_config
from dynasor.engines.openai import OpenAIEngine
from dynasor.errors import ConfigError
from dynasor.programs import algorithm_of, rule_of
from dynasor.rewards.build import with_rewards
from dynasor.runtime import Runtime
from dynasor.server_config import ALGORITHMS
from dynasor.suites import Query, Suite
from serving.server import check_efforts
from tests.serving.running_server import MODEL, QUESTION, running, settings
from tests.serving.scripted_engine import ScriptedEngine

SCORED = ["best-of-n", "beam-search", "dvts", "rebase", "mcts"]
STEP = "first two and two\n\n"


def reward(prompt, text):
    """What these servers' reward model says."""
    return 0.9 if "4" in text else 0.5


def rewarded(**server):
    """A server with a reward model."""
    model = {"kind": "function", "model": f"{__name__}:reward"}
    plain = settings(**server).model_dump(include={"engine", "server"}, exclude_unset=True)
    return load_config(overrides={**plain, "algorithm": {"reward": model}}, environment={})


def reasons(request):
    """Steps, probes, closings, plans and parts, whatever is asked for."""
    if request.kind == "probe":
        return "4} \\]"
    if request.kind == "answer":
        return "4} \\]"
    if request.kind == "step" and request.report_every:
        return None  # a chain that never ends by itself
    if request.kind == "step" and request.sampling.stop and not request.prefix:
        return STEP
    return "so it is \\boxed{4}"


def writes(request):
    """A plan of two parts, then parts of a hundred words."""
    asked = request.prompt[-1]["content"]
    if asked.startswith("Plan a text"):
        return "Part 1: seeds - 100 words\nPart 2: water - 100 words"
    return "grow " * 99 + "well."


def asked(algorithm, **options):
    return {
        "model": f"{MODEL}:{algorithm}",
        "messages": QUESTION,
        "extra_body": {"dynasor": options} if options else None,
    }


def bill(answer):
    tokens = answer.dynasor["tokens"]
    return sum(tokens[kind] for kind in ("answer", "other_samples", "probes", "cut"))


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a not in ("none", "agentwrite")])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_program_answers_and_its_bill_adds_up(algorithm, stream):
    engine = ScriptedEngine(reasons)
    options = {"cot": {"interval": 8}} if algorithm == "dynasor-cot" else {}
    text, states = "", []
    async with running(engine, config=rewarded()) as server:
        ask = asked(algorithm, **options)
        client = server.openai()
        if stream:
            chunks = await client.chat.completions.create(
                **ask, stream=True, stream_options={"include_usage": True}
            )
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                states += [chunk.dynasor["state"]] if hasattr(chunk, "dynasor") else []
                answer = chunk
            assert states.index("done") > 0
            assert set(states) == {"running", "done"}
        else:
            answer = await client.chat.completions.create(**ask)
            text = answer.choices[0].message.content
        await server.idle()
    report = answer.dynasor
    assert (report["algorithm"], report["answer"]) == (algorithm, "4")
    assert "\\boxed{4}" in text
    assert answer.usage.completion_tokens == bill(answer) > 0
    assert report["samples"] <= report["budget"]
    assert (report["scored"] > 0) == (algorithm in SCORED)
    assert report["tokens"]["answer"] > 0
    assert not engine.running


async def test_a_chain_is_probed_until_its_probes_agree_and_is_billed_as_its_answer():
    engine = ScriptedEngine(reasons)
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            **asked("dynasor-cot", cot={"window": 4, "interval": 8})
        )
    report, text = answer.dynasor, answer.choices[0].message.content
    assert (report["stopped"], report["certaindex"]["measure"]) == ("certain", "probes")
    assert report["votes"] == {"4": report["samples"]}
    assert report["samples"] >= 4
    assert report["tokens"]["probes"] == 2 * report["samples"]  # "4}" and "\]"
    assert text.startswith("hm hm")
    assert report["tokens"]["answer"] >= 8 * 4
    assert next(iter(engine.hints.values())).tokens < 10_000  # a probe is no whole sample


async def test_settings_of_the_body_go_before_the_servers_and_leave_the_others():
    engine = ScriptedEngine(reasons)
    config = rewarded()
    async with running(engine, config=config) as server:
        client = server.openai()
        await client.chat.completions.create(
            **asked("beam-search", search={"children": 2, "width": 6}, budget={"samples": 6})
        )
        steps = [request for request in engine.requests if request.kind == "step"]
        assert len([request for request in steps if not request.prefix]) == 6
        assert len([request for request in steps if request.prefix]) == 6  # 3 nodes, 2 children
        assert {request.sampling.max_tokens for request in steps} == {256}
        engine.requests.clear()
        await client.chat.completions.create(**asked("beam-search", budget={"samples": 6}))
        steps = [request for request in engine.requests if request.kind == "step"]
        roots = [request for request in steps if not request.prefix]
        assert len(roots) == config.algorithm.search.children
        best = await client.chat.completions.create(
            **asked("best-of-n", reward={"select": "best"}, stop={"rule": "fixed:3"}, wave=3)
        )
        assert best.dynasor["samples"] == 3
        online = await client.chat.completions.create(
            **asked("deepconf", deepconf={"warm_up": 5, "keep": 0.5})
        )
        assert online.dynasor["samples"] >= 5
        short = await client.chat.completions.create(
            **asked("short-m-of-k", short={"first": 2}, budget={"samples": 5})
        )
        assert (short.dynasor["samples"], short.dynasor["budget"]) == (2, 2)


def goes_on(request):
    """What a model says that is shown an unfinished text: it has no other way to know what is wanted."""
    if request.prefix.endswith("\\boxed{"):
        return "4} \\]"
    if request.sampling.stop:
        return "so \\boxed{4}" if request.prefix == STEP else STEP
    return None


@pytest.mark.parametrize("name", ["dynasor-cot", "rebase"])
async def test_a_program_that_goes_on_from_texts_runs_on_this_server_as_its_engine(name):
    algorithm = {"name": name, "samples": 2, "max_tokens": 90, "cot": {"interval": 8}}
    algorithm["reward"] = {"kind": "function", "model": f"{__name__}:reward"}
    scripted, suite = ScriptedEngine(goes_on), Suite("s", (Query("q", "2 + 2", "4"),), "boxed")
    async with running(scripted) as server:
        place = {"kind": "openai", "base_urls": (f"{server.root}/v1",), "model": MODEL}
        config = load_config(overrides={"algorithm": algorithm, "engine": place}, environment={})
        engine = with_rewards(config, OpenAIEngine([f"{server.root}/v1"], timeout=30))
        await engine.start()
        with AnswerEquivalence() as equivalence:
            program = make_program(config, suite, suite.queries[0], 0, equivalence)
            wave = algorithm_of(config).wave(config)
            runtime = Runtime(engine, PerQuery(parse_rule(rule_of(config)), wave))
            outcome = await runtime.solve(program)
        await engine.close()
    assert (outcome.answer.value, outcome.failed, outcome.errors) == ("4", 0, ())
    assert any(request.prefix for request in scripted.requests)
    assert outcome.reason in ("certain", "complete")


@pytest.mark.parametrize("stream", [False, True])
async def test_agentwrite_writes_its_plan_and_keeps_to_its_words(stream):
    engine = ScriptedEngine(writes)
    async with running(engine) as server:
        answer = await server.openai().chat.completions.create(
            model=f"{MODEL}:agentwrite",
            messages=[{"role": "user", "content": "On balconies"}],
            stream=stream,
            extra_body={"dynasor": {"write": {"words": 200}}},
        )
        if stream:
            text = "".join([c.choices[0].delta.content or "" async for c in answer])
        else:
            text = answer.choices[0].message.content
            assert answer.dynasor["tokens"]["answer"] == 200
            assert bill(answer) == answer.usage.completion_tokens > 200
            assert answer.dynasor["votes"] == {}
    assert text == "\n\n".join(["grow " * 99 + "well."] * 2)


async def test_models_are_those_that_the_server_can_serve():
    async with running(ScriptedEngine()) as server:
        names = [model.id async for model in server.openai().models.list()]
        assert not [name for name in names if name.partition(":")[2] in SCORED]
        assert f"{MODEL}:dynasor-cot" in names
        for algorithm in SCORED:
            with pytest.raises(openai.BadRequestError, match="needs a reward model") as caught:
                await server.openai().chat.completions.create(**asked(algorithm))
            assert caught.value.param == "model"
    async with running(ScriptedEngine(), config=rewarded()) as server:
        names = [model.id async for model in server.openai().models.list()]
    assert names == [MODEL, *(f"{MODEL}:{name}" for name in ALGORITHMS if name != "none")]


@pytest.mark.parametrize(
    ("algorithm", "options", "param"),
    [
        ("beam-search", {"search": {"children": 0}}, "search.children"),
        ("beam-search", {"search": {"children": 17}}, "search.children"),
        ("beam-search", {"search": {"children": 4, "width": 2}}, "search.width"),
        ("rebase", {"search": {"width": 20}}, "search.width"),
        ("dvts", {"budget": {"samples": 2}}, "search.children"),
        ("mcts", {"search": {"step_tokens": 30000}}, "search.step_tokens"),
        ("mcts", {"search": {"depth": 1000, "delimiter": "x"}}, "search.depth"),
        ("rebase", {"search": {"magic": 1}}, "search.magic"),
        ("self-consistency", {"search": {}}, "search"),
        ("best-of-n", {"reward": {"base_url": "http://10.0.0.1"}}, "reward.base_url"),
        ("best-of-n", {"reward": {"kind": "function", "model": "os:system"}}, "reward.kind"),
        ("dynasor-cot", {"cot": {"window": 1}}, "cot.window"),
        ("dynasor-cot", {"cot": {"interval": 1}}, "cot.interval"),
        ("dynasor-cot", {"cot": {"interval": 8, "probe_tokens": 1024}}, "cot.probe_tokens"),
        ("dynasor-cot", {"budget": {"samples": 4}}, "budget.samples"),
        ("deepconf", {"deepconf": {"report_every": 1}}, "deepconf.report_every"),
        ("deepconf", {"deepconf": {"keep": 0}}, "deepconf.keep"),
        ("short-m-of-k", {"short": {"first": 17}}, "short.first"),
        ("agentwrite", {}, "write"),
        ("agentwrite", {"write": {"words": 500_000}}, "write.words"),
        ("agentwrite", {"write": {"words": 100}, "stop": {"rule": "fixed:3"}}, "stop.rule"),
    ],
)
async def test_settings_that_cannot_be_are_refused_by_name(algorithm, options, param):
    engine = ScriptedEngine()
    async with running(engine, config=rewarded()) as server, server.http() as http:
        body = {"model": f"{MODEL}:{algorithm}", "messages": QUESTION, "dynasor": options}
        response = await http.post("/v1/chat/completions", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == f"dynasor.{param}"
    assert not engine.requests


@pytest.mark.parametrize(
    ("algorithm", "field", "value"),
    [
        ("rebase", "stop", ["x"]),
        ("mcts", "logprobs", True),
        ("dynasor-cot", "n", 2),
        ("agentwrite", "messages", [*QUESTION, *QUESTION]),
    ],
)
async def test_fields_that_do_not_go_with_a_program_are_refused(algorithm, field, value):
    options = {"write": {"words": 50}} if algorithm == "agentwrite" else {}
    async with running(ScriptedEngine(), config=rewarded()) as server, server.http() as http:
        body = {"model": f"{MODEL}:{algorithm}", "messages": QUESTION, "dynasor": options}
        response = await http.post("/v1/chat/completions", json={**body, field: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


async def test_rewards_that_fail_are_the_engines_failure_and_no_answer():
    broken = {"kind": "function", "model": "math:sqrt"}  # takes one argument
    config = rewarded()
    algorithm = config.algorithm.model_copy(
        update={"reward": config.algorithm.reward.model_copy(update=broken)}
    )
    config = config.model_copy(update={"algorithm": algorithm})
    async with running(ScriptedEngine(reasons), config=config) as server:
        with pytest.raises(openai.InternalServerError, match="reward") as caught:
            await server.openai().chat.completions.create(**asked("best-of-n"))
        await server.idle()
    assert caught.value.status_code == 502


@pytest.mark.parametrize("algorithm", ["dynasor-cot", "short-m-of-k", "deepconf", "mcts"])
async def test_a_deadline_and_a_client_that_leaves_end_every_program(algorithm):
    engine = ScriptedEngine(lambda request: None, pause=0.002)
    async with running(engine, config=rewarded()) as server:
        answer = await server.openai().chat.completions.create(
            **asked(algorithm, deadline_ms=150), max_tokens=5000
        )
        assert answer.dynasor["stopped"] == "deadline"
        assert answer.dynasor["best_so_far"]
        await server.idle()
        stream = await server.openai().chat.completions.create(**asked(algorithm), stream=True)
        while not engine.running:
            await asyncio.sleep(0.01)
        await stream.close()
        await server.idle()
    assert not engine.running


async def test_improbable_samples_are_cut_where_votes_are_weighed_by_evidence():
    config = load_config(
        overrides={"algorithm": {"weigh": "evidence"}, "allocator": {"wave": 2}}, environment={}
    )
    engine = ScriptedEngine(
        lambda request: None if request.index == 1 else "so it is \\boxed{4}",
        logprob=lambda request: -9.0 if request.index == 1 else -0.01,
        pause=0.001,
    )
    async with running(engine, config=config) as server:
        answer = await server.openai().chat.completions.create(
            model="embedded:self-consistency",
            messages=QUESTION,
            extra_body={"dynasor": {"stop": {"rule": "fixed:4"}, "budget": {"samples": 4}}},
        )
    algorithm = config.algorithm.model_copy(update={"early_cut": False})
    off = ScriptedEngine()
    async with running(off, config=config.model_copy(update={"algorithm": algorithm})) as server:
        await server.openai().chat.completions.create(
            model="embedded:self-consistency",
            messages=QUESTION,
            max_tokens=20,
            extra_body={"dynasor": {"stop": {"rule": "fixed:2"}}},
        )
    assert any(name.endswith("#1") for name in engine.cut)
    assert answer.dynasor["votes"] == {"4": 3}
    assert 0 < answer.dynasor["tokens"]["cut"] < 1024
    assert off.requests[0].report_every is None


def test_efforts_that_cannot_be_served_are_one_line_at_the_start():
    check_efforts(rewarded(effort={"high": {"algorithm": "mcts"}}))
    with pytest.raises(ConfigError, match=r"server\.effort\.high\.algorithm = 'mcts'.*reward"):
        check_efforts(settings(effort={"high": {"algorithm": "mcts"}}))
    with pytest.raises(ConfigError, match="how long"):
        check_efforts(settings(effort={"low": {"algorithm": "agentwrite"}}))


async def test_an_effort_may_mean_any_program():
    config = settings(effort={"high": {"algorithm": "short-m-of-k", "samples": 6}})
    async with running(ScriptedEngine(), config=config) as server:
        answer = await server.openai().chat.completions.create(
            model=MODEL, messages=QUESTION, reasoning_effort="high"
        )
    assert (answer.dynasor["algorithm"], answer.dynasor["samples"]) == ("short-m-of-k", 3)
