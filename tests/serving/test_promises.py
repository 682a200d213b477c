"""What the server does about its promises: settings by class, drift, audits, overload."""

import asyncio
import json
import logging

import openai
import pytest

from dynasor.config import load_config
from dynasor.errors import DynasorError
from dynasor.slo.calibration_set import (
    CalibratedQuery,
    CalibrationSet,
    CertifiedSetting,
    ClassCalibration,
)
from dynasor.slo.promise import ClassSettings
from dynasor.slo.strayed import EXPERIENCE
from serving.app import reconfigure
from serving.keys import Keys
from serving.promises import Promises, load_calibration
from tests.serving.running_server import MODEL, QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine, boxed
from tests.serving.test_operations import metrics_of

SC = f"{MODEL}:self-consistency"
FULL, BASE, BOLD = ("never", 8, 300.0), ("certaindex:0.9,min=3", 8, 90.0), ("fixed:2", 8, 60.0)
WORDS = 4  # tokens of a scripted sample


def certified(rule, samples, tokens, wave=1):
    return CertifiedSetting(
        settings=ClassSettings(rule=rule, samples=samples, wave=wave),
        loss=0.0,
        bound=0.01,
        p_value=0.01,
        tokens=tokens,
        samples=tokens / 30,
    )


def calibration(path, queries=60, wave=1):
    """A class `all` whose queries agree at once, three samples each."""
    ended = CalibratedQuery(
        id="q",
        certainty=1.0,
        agreement=1.0,
        samples=3,
        tokens=3 * WORDS,
        sample_tokens=float(WORDS),
        differed=False,
        loss=0.0,
    )
    CalibrationSet(
        model=MODEL,
        rate=None,
        classes={
            "all": ClassCalibration(
                full_samples=8,
                loss="answer",
                epsilon=0.02,
                guarantee="confidence",
                delta=0.1,
                certified=tuple(certified(*each, wave=wave) for each in (FULL, BASE, BOLD)),
                chosen=1,
                queries=(ended,) * queries,
            )
        },
    ).save(path)
    return str(path)


def settings(calibrated=None, promised=None, **slo):
    promised = {"epsilon": 0.02, **(promised or {})}
    sections = {
        "engine": {"kind": "openai", "base_urls": ("http://x/v1",), "model": MODEL},
        "slo": {"calibration": calibrated, "audit": 0.0, "classes": {"all": promised}, **slo},
    }
    return load_config(overrides=sections, environment={})


async def ask(server, count=1, **more):
    client = server.openai()
    return [
        await client.chat.completions.create(model=SC, messages=QUESTION, **more)
        for _ in range(count)
    ]


async def test_a_class_gives_its_setting_but_to_queries_that_bring_their_own(tmp_path):
    config = settings(calibration(tmp_path / "c.json"))
    async with running(ScriptedEngine(boxed("4")), config=config) as server:
        (given,) = await ask(server)
        (own,) = await ask(server, extra_body={"dynasor": {"budget": {"samples": 5}}})
        (hot,) = await ask(server, temperature=0.3)
        seen = server.service.promises.statuses()["all"].seen
    assert (given.dynasor["samples"], given.dynasor["budget"]) == (3, 8)
    assert (own.dynasor["budget"], hot.dynasor["budget"]) == (5, 16)
    assert seen == 1


async def test_drift_is_told_everywhere_and_the_full_budget_takes_over(tmp_path, caplog):
    config = settings(calibration(tmp_path / "c.json"))
    answers = ["4"]
    engine = ScriptedEngine(lambda r: f"so it is \\boxed{{{answers[0]}{'x' * r.index}}}")
    async with running(engine, config=config) as server, server.http() as http:
        assert (await http.get("/healthz")).json()["promises"] == "no alarm"
        with caplog.at_level(logging.WARNING):
            needed = 0
            while (await http.get("/healthz")).json()["promises"] != "alarm" and needed < 40:
                await ask(server)
                needed += 1
        (after,) = await ask(server)
        status = (await http.get("/slo")).json()["all"]
        seen = await metrics_of(http)
        async with http.stream("GET", "/events") as response:
            async for line in response.aiter_lines():
                picture = json.loads(line.removeprefix("data: "))
                break
    assert needed < 30
    assert after.dynasor["samples"] == 8
    assert "drift: the" in status["alarms"][0]
    assert status["setting"] == "never, 8 samples, wave 1"
    assert seen["dynasor_slo_alarms", "all"] == 1
    assert any("class all: drift" in record.getMessage() for record in caplog.records)
    assert picture["alarms"] == [f"all: {status['alarms'][0]}; served with {status['setting']}"]


async def audits_end(server):
    async with asyncio.timeout(20):
        while server.service.audits.running:
            await asyncio.sleep(0.01)


async def test_audits_find_a_loss_without_keeping_anybody_waiting(tmp_path):
    config = settings(calibration(tmp_path / "c.json"), audit=1.0, watch={"audits": 64})
    engine = ScriptedEngine(lambda r: boxed("4" if r.index < 3 else "5")(r))
    async with running(engine, config=config) as server, server.http() as http:
        (answer,) = await ask(server)
        assert (answer.dynasor["answer"], answer.dynasor["samples"]) == ("4", 3)
        await audits_end(server)
        audit = [r for r in engine.requests if r.program.endswith("-audit")]
        assert [r.index for r in audit] == [3, 4, 5, 6, 7]  # the finished samples are taken over
        seen = await metrics_of(http)
        assert seen["dynasor_slo_audits", "all", "differed"] == 1
        assert seen["dynasor_tokens_total", "audit"] == 5 * WORDS
        assert engine.hints[audit[0].program].weight < 1e-6  # the scheduler lets all others pass
        assert engine.hints[answer.id].weight is None
        for _ in range(12):
            (answer,) = await ask(server)
            await audits_end(server)
        status = (await http.get("/slo")).json()["all"]
    assert "loss: at least" in status["alarms"][0]
    assert answer.dynasor["answer"] == "5"  # the full budget's


async def test_an_audit_goes_on_with_samples_that_were_cut(tmp_path):
    config = settings(calibration(tmp_path / "c.json", wave=4), audit=1.0)
    long = "one two three four five six seven eight nine ten \\boxed{4}"
    engine = ScriptedEngine(lambda r: long if r.index == 3 else boxed("4")(r), pause=0.01)
    async with running(engine, config=config) as server:
        await ask(server)
        await audits_end(server)
        status = server.service.promises.statuses()["all"]
    (rest,) = [r for r in engine.requests if r.program.endswith("-audit") and r.index == 3]
    assert rest.prefix
    assert long.startswith(rest.prefix)
    assert status.audited == {"differed": 0, "same": 1, "dropped": 0}


async def test_an_audit_stops_when_the_server_is_needed_and_goes_on_where_it_was(tmp_path):
    config = settings(calibration(tmp_path / "c.json"), {"latency": {"p90": 5.0}}, audit=1.0)
    needed = True
    engine = ScriptedEngine(lambda r: None if needed and r.index >= 3 else boxed("4")(r))
    async with running(engine, config=config) as server:
        await ask(server)
        while not any(r.program.endswith("-audit") for r in engine.requests):
            await asyncio.sleep(0.01)
        busy(server.service.promises.pace, inside=8, seconds=20.0)
        control = server.service.promises.classes["all"]._control
        for number in range(EXPERIENCE):  # as late as was expected
            control.begun(number, 6.0)
            control.ended(number, 6.0)
        with pytest.raises(openai.RateLimitError) as refused:
            await ask(server)
        while engine.running:
            await asyncio.sleep(0.01)
        begun = len(engine.requests)
        await asyncio.sleep(0.05)
        assert (server.service.audits.running, len(engine.requests)) == (1, begun)
        status = server.service.promises.statuses()["all"]
        needed = False
        await calm(server)
        await audits_end(server)
        after = server.service.promises.statuses()["all"]
    assert refused.value.code == "overloaded"
    assert 10 <= int(refused.value.response.headers["retry-after"]) <= 20
    assert (status.refused, status.level) == (1, 2)
    assert status.audited == {"differed": 0, "same": 0, "dropped": 0}
    assert after.audited == {"differed": 0, "same": 1, "dropped": 0}
    audit = [each for each in engine.requests[begun:] if "-audit" in each.program]
    assert [request.index for request in audit] == [3, 4, 5, 6, 7]
    assert audit[0].prefix.startswith("hm")


async def test_an_audit_that_waits_is_dropped_when_the_server_ends(tmp_path):
    config = settings(calibration(tmp_path / "c.json"), {"latency": {"p50": 12.0}}, audit=1.0)
    async with running(ScriptedEngine(boxed("4")), config=config) as server:
        busy(server.service.promises.pace, inside=8, seconds=8.0)
        await ask(server)
        promises = server.service.promises
        assert server.service.audits.running == 1
    assert promises.statuses()["all"].audited == {"differed": 0, "same": 0, "dropped": 1}


def busy(pace, inside, seconds):
    """As if so many queries were inside, and a query took so many seconds at that load, one alone."""
    for at, ended in ((1, 1.0), (inside, seconds)):
        level = pace._levels.setdefault(at.bit_length(), type(pace._pass())())
        level.ended, level.work, level._seconds = 10, 90.0 * at * 10, ended * 10
    for _ in range(inside):
        pace.enter(90.0)
    pace._then += 3600  # no time passes for the test


async def calm(server):
    """As if those had left; the next query that ends finds it so."""
    pace = server.service.promises.pace
    while pace.inside:
        pace.leave(90.0, ended=False)
    await server.openai().chat.completions.create(model=MODEL, messages=QUESTION)


async def test_under_overload_bolder_settings_come_before_refusals_and_are_audited_after_it(
    tmp_path,
):
    config = settings(calibration(tmp_path / "c.json"), {"latency": {"p50": 12.0}}, audit=1.0)
    engine = ScriptedEngine(boxed("4"))
    async with running(engine, config=config) as server:
        busy(server.service.promises.pace, inside=8, seconds=8.0)
        (bold,) = await ask(server)
        status = server.service.promises.statuses()["all"]
        await asyncio.sleep(0.05)
        assert (server.service.audits.running, len(engine.requests)) == (1, 2)
        await calm(server)
        await audits_end(server)
        audited = server.service.promises.statuses()["all"].audited
    assert bold.dynasor["samples"] == 2
    assert (status.level, status.refused, status.seen) == (1, 0, 0)
    audit = [each for each in engine.requests if "-audit" in each.program]
    assert [request.index for request in audit] == [2, 3, 4, 5, 6, 7]
    assert audited == {"differed": 0, "same": 1, "dropped": 0}


async def test_a_class_that_has_spent_its_tokens_of_the_day_is_refused_until_midnight(tmp_path):
    config = settings(calibration(tmp_path / "c.json"), {"tokens_per_day": 3 * WORDS})
    async with running(ScriptedEngine(boxed("4")), config=config) as server:
        await ask(server)
        with pytest.raises(openai.RateLimitError) as refused:
            await ask(server)
        await server.openai().chat.completions.create(model=MODEL, messages=QUESTION)
    assert refused.value.code == "day_budget"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 86_400


async def test_the_weight_of_a_class_and_the_priority_of_a_query_are_told_to_the_scheduler():
    config = settings(None, {"weight": 4.0})
    engine = ScriptedEngine(boxed("4"))
    async with running(engine, config=config) as server:
        usual, urgent = [
            (await ask(server, extra_body={"dynasor": {"priority": priority}}))[0].id
            for priority in (0, 1)
        ]
        (own,) = await ask(server, extra_body={"dynasor": {"wave": 2}})
    weights = [engine.hints[query].weight for query in (usual, urgent, own.id)]
    assert weights == [4, 8, None]  # nothing is promised to a query with a setting of its own


async def test_without_control_nobody_is_refused(tmp_path):
    config = settings(
        calibration(tmp_path / "c.json"), {"latency": {"p90": 0.5}}, watch={"control": False}
    )
    async with running(ScriptedEngine(boxed("4")), config=config) as server:
        busy(server.service.promises.pace, inside=8, seconds=20.0)
        (answer,) = await ask(server)
    assert answer.dynasor["samples"] == 3


async def test_a_new_configuration_begins_the_watch_anew_only_where_it_changes_promises(tmp_path):
    config = settings(calibration(tmp_path / "c.json"))
    async with running(ScriptedEngine(boxed("4")), config=config) as server:
        await ask(server)
        reconfigure(server.app, server.door, config, Keys([]))
        assert server.service.promises.statuses()["all"].seen == 1
        missing = settings(str(tmp_path / "missing.json"))
        with pytest.raises(DynasorError, match="cannot be read"):
            reconfigure(server.app, server.door, missing, Keys([]))
        calibration(tmp_path / "c.json", queries=70)
        reconfigure(server.app, server.door, config, Keys([]))
        assert server.service.promises.statuses()["all"].seen == 0


@pytest.mark.parametrize(
    ("promised", "message"),
    [
        ({"settings": {"rule": "fixed:7"}}, "slo.classes.all.settings: fixed:7, .* not among"),
        ({"settings": {"samples": 512, "rule": "never"}}, "not among"),
    ],
)
async def test_settings_that_were_not_certified_are_refused(tmp_path, promised, message):
    config = settings(calibration(tmp_path / "c.json"), promised)
    with pytest.raises(DynasorError, match=message):
        async with running(ScriptedEngine(boxed("4")), config=config):
            pass


@pytest.mark.parametrize(
    ("promised", "message"),
    [
        ({"epsilon": 0.01}, "promises epsilon = 0.01, .* certifies epsilon = 0.02"),
        ({"delta": 0.05}, "promises epsilon = 0.02, delta = 0.05"),
        ({"loss": "accuracy"}, "loss = 'accuracy'"),
        ({"guarantee": "mean"}, "guarantee = 'mean'"),
    ],
)
def test_a_promise_that_was_tightened_after_tuning_is_refused(tmp_path, promised, message):
    config = settings(calibration(tmp_path / "c.json"), promised)
    with pytest.raises(DynasorError, match=rf"slo\.classes\.all .*{message}.*run `dynasor tune`"):
        Promises(config, load_calibration(config))


def test_a_promise_that_was_loosened_is_kept_and_one_that_was_added_is_refused(tmp_path):
    config = settings(calibration(tmp_path / "c.json"), {"epsilon": 0.1, "delta": 0.2})
    Promises(config, load_calibration(config))
    both = {"hard": {"effort": "high", "epsilon": 0.1}, "all": {"epsilon": 0.1}}
    config = settings(config.slo.calibration, classes=both)
    with pytest.raises(DynasorError, match=r"slo\.classes\.hard is not in .*c\.json"):
        Promises(config, load_calibration(config))


async def test_a_class_without_settings_leaves_queries_as_they_are():
    async with running(ScriptedEngine(boxed("4")), config=settings(audit=1.0)) as server:
        (answer,) = await ask(server, reasoning_effort="low")
        status = server.service.promises.statuses()["all"]
    assert answer.dynasor["budget"] == 8
    assert status.setting == "of each query"
    assert status.audited == {"differed": 0, "same": 0, "dropped": 0}
