"""`[slo.watch] file`: a server that starts anew goes on with what the last one knew."""

import asyncio
import logging
import os
import shutil
import signal

import openai
import pytest

from dynasor.errors import ConfigError
from dynasor.slo.kept_evidence import KeptEvidence
from serving.app import reconfigure
from serving.evidence_file import EvidenceFile, evidence_file, kept
from serving.keys import Keys
from serving.promises import Promises, load_calibration
from tests.scripted_server import ScriptedServer, stream
from tests.serving.running_server import QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine, boxed
from tests.serving.test_promises import ask, calibration, settings
from tests.serving.test_shutdown import SC, client_of, served


def promises(config, **more):
    return Promises(config, load_calibration(config), **more)


def alarmed(config):
    """Promises of which one is in doubt."""
    found = promises(config)
    watch = found.classes["all"]
    while not watch.alarms:
        watch.audited(watch.admit(), differed=True)
    return found


async def end(serving):
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(30):
        await serving


async def test_a_server_that_starts_anew_has_spent_what_the_last_one_spent(tmp_path):
    slo = {
        "classes": {"all": {"tokens_per_day": 3}},
        "watch": {"file": str(tmp_path / "evidence.json")},
    }
    ask = {"model": SC, "messages": QUESTION}
    async with ScriptedServer(default=stream("it is \\boxed{4}")) as remote:
        async with served(remote, slo) as (root, serving), client_of(root) as client:
            answer = await client.chat.completions.create(**ask)
            assert answer.dynasor["answer"] == "4"
            await end(serving)
        assert KeptEvidence.load(tmp_path / "evidence.json").classes["all"].spent >= 3
        async with served(remote, slo) as (root, serving), client_of(root) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(**ask)
            await end(serving)
    assert refused.value.code == "day_budget"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "evidence.json",
        "evidence.json.lock",
    ]


async def test_an_alarm_outlives_the_server_and_a_new_calibration_ends_it(tmp_path):
    config = settings(calibration(tmp_path / "c.json"), audit=1.0)
    alarmed(config).kept().save(tmp_path / "e.json")
    found = promises(config, kept=KeptEvidence.load(tmp_path / "e.json"))
    assert len(found.alarms) == 1
    assert found.classes["all"].setting.rule == "never"
    calibration(tmp_path / "c.json", queries=70)
    assert not promises(config, kept=found.kept()).alarms


async def test_a_new_configuration_keeps_the_alarms_of_classes_that_it_leaves_as_they_are(tmp_path):
    config = settings(calibration(tmp_path / "c.json"))
    async with running(ScriptedEngine(boxed("4")), config=config) as server:
        server.service.promises = before = alarmed(config)
        pace = before.pace
        more = settings(config.slo.calibration, {"latency": {"p90": 9.0}})
        reconfigure(server.app, server.door, more, Keys([]))
        after = server.service.promises
        assert (after is before, after.pace is pace) == (False, True)
        assert after.alarms == before.alarms
        (answer,) = await ask(server)
        assert answer.dynasor["samples"] == 8
        reconfigure(server.app, server.door, settings(None, {"epsilon": 0.5}), Keys([]))
        assert not server.service.promises.alarms


def test_a_file_is_for_one_server_and_must_be_writable(tmp_path):
    path = str(tmp_path / "e.json")
    with evidence_file(path):
        with pytest.raises(ConfigError, match="another server has it"):
            with evidence_file(path):
                pass
    with evidence_file(path) as file, evidence_file(None) as none:
        assert file.found is none is None
    with pytest.raises(ConfigError, match=r"slo\.watch\.file = .*cannot be written"):
        with evidence_file(str(tmp_path / "none" / "e.json")):
            pass


@pytest.mark.parametrize("text", ["{", '{"version": 2, "classes": {}}'])
def test_what_is_no_evidence_is_put_aside_with_one_clear_line(tmp_path, caplog, text):
    path = tmp_path / "e.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING), evidence_file(str(path)) as file:
        assert file.found is None
    (line,) = caplog.messages
    assert "the watch begins anew, and it is now e.json.bad" in line
    assert (tmp_path / "e.json.bad").read_text() == text


def test_a_disk_that_is_full_is_told_once_and_tried_again(tmp_path, caplog):
    folder = tmp_path / "there"
    folder.mkdir()
    file, known = EvidenceFile(folder / "e.json"), promises(settings(None))
    shutil.rmtree(folder)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            file.save(known.kept())
        folder.mkdir()
        file.save(known.kept())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert KeptEvidence.load(folder / "e.json") == known.kept()


async def test_it_is_written_while_serving_when_there_is_something_new(tmp_path):
    file, known = EvidenceFile(tmp_path / "e.json"), promises(settings(None))
    async with kept(file, known.kept, every=0.01):
        async with asyncio.timeout(20):
            while not (tmp_path / "e.json").exists():
                await asyncio.sleep(0.01)
        written = (tmp_path / "e.json").stat().st_mtime_ns
        await asyncio.sleep(0.05)
        assert (tmp_path / "e.json").stat().st_mtime_ns == written
        known.classes["all"].spend(7)
    assert KeptEvidence.load(tmp_path / "e.json").classes["all"].spent == 7
