"""`dynasor bench online` as a user meets it: in a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.scripted_server import ScriptedServer, chunk, status, usage

KEYS = {"name", "accuracy", "tokens", "rates", "max_rate_at_90", "tightest_scale_at_90"}
RATE_KEYS = {"rate", "attainment", "mean", "p50", "p90", "p99"}
SHORT = [
    *("--duration", "2", "--warm-up", "0.4", "--cool-down", "0.4", "--rates", "4,8"),
    *("--slo-scale", "20", "-n", "4", "--json"),
]


def command(*arguments):
    return [sys.executable, "-m", "dynasor.cli", *map(str, arguments)]


def dynasor(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)


async def answer(exchange):
    """A boxed answer in a twentieth of a second."""
    await exchange.head()
    await exchange.event(chunk("\\boxed{a}"))
    await asyncio.sleep(0.05)
    for event in (chunk(finish="stop"), usage(5), "[DONE]"):
        await exchange.event(event)


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "suite.jsonl"
    rows = [
        {"id": f"q{i}", "question": f"what is {i}?", "answer": "a", "level": i % 2}
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def against(run, server, suite, out, *more):
    """Run the benchmark on a server of this event loop, which therefore must not wait for it."""
    arguments = ("--suite", suite, "--engine", "openai", "--base-url", server.url)
    ended = await asyncio.to_thread(run, "bench", "online", *arguments, "--out", out, *SHORT, *more)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rates", "1,0"], "--rates 0: a rate must be above 0"),
        (["--rates", "-2"], "--rates -2: a rate must be above 0"),
        (["--rates", "fast"], "--rates fast: give numbers"),
        (["--rates", ","], "--rates is empty"),
        (["--slo-scale", "0.9"], "--slo-scale 0.9: must be 1 to 1,000,000"),
        (["--traffic", "gamma:0"], "--traffic gamma:0"),
        (["--traffic", "trace:nowhere"], "nowhere: cannot be read"),
        (["--profile", "huge"], "--profile huge: there are quick, ablation, full"),
        (["--system", "magic"], "--system magic: there are all, vanilla"),
        (["--chats", "1"], "--chats 1"),
        (["--rates", "1e9"], "at most 1,000,000 arrivals a second"),
        (["--rates", "9e5"], "more than 1,000,000 arrivals in 20 s"),
        (["--slo-scale", "inf"], "--slo-scale inf: must be 1 to 1,000,000"),
        (["--duration", "nan"], "--duration nan: must be 0 to 1,000,000 seconds"),
        (["--duration", "1e12"], "--duration 1e+12: must be 0 to"),
        (["--warm-up", "-1"], "--warm-up -1: must be 0 to"),
        (["--cool-down", "inf"], "--cool-down inf: must be 0 to"),
        (["--slo-class", "question"], "only with --simulated"),
        (["--repeats", "0"], "--repeats 0"),
        (["--duration", "3"], "leave nothing of 3 s"),
        (["--wave", "0"], "allocator.wave = 0"),
        (["--rule", "luck"], "allocator.rule = 'luck'"),
        (["--limit", "0"], "--limit = 0"),
        (["--suite", "nowhere"], "no suite 'nowhere'"),
        (["--engine", "replay"], "--engine replay"),
    ],
)
def test_wrong_input_is_one_clear_line(run_here, arguments, message, tmp_path):
    result = run_here("bench", "online", *arguments, "--out", tmp_path)
    assert result.returncode == 2
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("dynasor: ")]
    assert message in line
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_it_serves_self_consistency_only(run_here, monkeypatch, tmp_path):
    monkeypatch.setenv("DYNASOR_ALGORITHM__NAME", "rebase")
    result = run_here("bench", "online", "--out", tmp_path)
    assert result.returncode == 2
    assert "algorithm.name = 'rebase': the online benchmark compares" in result.stderr


def test_an_empty_suite_is_refused(run_here, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    result = run_here("bench", "online", "--suite", tmp_path / "empty.jsonl")
    assert result.returncode == 2
    assert "holds no questions" in result.stderr


def test_bench_and_bench_online_have_help_of_their_own(run_here):
    assert "--slo-scale" in run_here("bench", "online", "--help").stdout
    offline = run_here("bench", "--help")
    assert "--no-baseline" in offline.stdout
    assert "--slo-scale" not in offline.stdout


async def test_json_has_the_promised_shape_and_the_folder_the_rest(run_here, suite, tmp_path):
    out = tmp_path / "run"
    async with ScriptedServer(default=answer) as server:
        code, output, errors = await against(dynasor, server, suite, out, "--chats", "0.3")
        assert code == 0, errors
        asked = len(server.exchanges)
        again = await against(run_here, server, suite, out, "--chats", "0.3")
        assert len(server.exchanges) == asked, "what has been run is not run again"
    assert "Traceback" not in errors
    report = json.loads(output)
    assert report == json.loads((out / "online.json").read_text()) == json.loads(again[1])
    assert {"systems", "rate_ratio", "slo_ratio"} <= report.keys()
    vanilla, ours = report["systems"]
    assert (vanilla["name"], ours["name"]) == ("vanilla", "ours")
    for system in report["systems"]:
        assert system.keys() >= KEYS
        assert system["accuracy"] == 1
        assert [row["rate"] for row in system["rates"]] == [4, 8]
        assert all(row.keys() >= RATE_KEYS for row in system["rates"])
        assert all(row["p50"] <= row["p90"] <= row["p99"] for row in system["rates"])
    assert vanilla["tokens"] == 4 * 5
    assert set(report["unloaded"]) == {"level 0", "level 1", "chat"}
    rows = [json.loads(line) for line in (out / "completions.jsonl").read_text().splitlines()]
    kinds = {row["arrival"]["kind"]: row["completion"]["samples"] for row in rows}
    assert kinds["chat"] == 1
    # Both systems meet the same questions at the same times.
    met = {
        name: sorted(
            (row["point"]["rate"], row["arrival"]["time"], row["arrival"]["question"])
            for row in rows
            if row["point"]["system"] == name
            and row["point"]["scale"] == 20
            and 0.4 <= row["arrival"]["time"] < 1.6
        )
        for name in ("vanilla", "ours")
    }
    assert met["vanilla"] == met["ours"]
    for name in ("attainment_by_rate.png", "attainment_by_scale.png", "latency_by_rate.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


async def test_another_benchmark_in_the_folder_is_refused(run_here, suite, tmp_path):
    out = tmp_path / "run"
    async with ScriptedServer(default=answer) as server:
        assert (await against(run_here, server, suite, out))[0] == 0
        code, _, errors = await against(run_here, server, suite, out, "--traffic", "gamma:2")
    assert code == 2
    assert "holds a run with other settings (traffic: 'poisson' there" in errors


async def test_an_engine_that_fails_queries_makes_the_exit_code_1(run_here, suite, tmp_path):
    async with ScriptedServer(default=answer) as server:
        kept = tmp_path / "run" / "completions.jsonl"
        run = asyncio.create_task(against(run_here, server, suite, tmp_path / "run"))
        while not kept.exists() or not kept.read_bytes():
            await asyncio.sleep(0.02)
            assert not run.done(), run.result()
        server.default = status(400, "too long")
        code, output, errors = await run
    assert code == 1, errors
    assert json.loads(output)["failed"] > 0
    assert "the engine failed" in errors


async def test_ctrl_c_keeps_what_was_answered(run_here, suite, tmp_path):
    out = tmp_path / "run"
    async with ScriptedServer(default=answer) as server:
        process = await asyncio.create_subprocess_exec(
            *command("bench", "online", "--suite", suite, "--engine", "openai"),
            *("--base-url", server.url, "--out", str(out), *SHORT),
            stderr=asyncio.subprocess.PIPE,
            # A shell starts its background jobs with Ctrl-C ignored, and the tests may be one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not (out / "points.jsonl").exists() or not (out / "points.jsonl").read_bytes():
            await asyncio.sleep(0.05)
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert process.returncode == 130
        assert b"Traceback" not in errors
        assert b"vanilla" in errors
        assert json.loads((out / "online.json").read_text())["systems"]
        kept = (out / "points.jsonl").read_bytes()
        code, _, errors = await against(run_here, server, suite, out)
    assert code == 0, errors
    assert "going on after" in errors
    assert (out / "points.jsonl").read_bytes().startswith(kept)


LIVE = [
    *("--duration", "8", "--warm-up", "1", "--cool-down", "1", "--rates", "0.5"),
    *("-n", "4", "--json"),
]


@pytest.mark.timeout(600)
# The first has vanilla's scheduler, so that one engine serves both; `ours` needs a second one.
@pytest.mark.parametrize("name", ["stop-only", pytest.param("ours", marks=pytest.mark.slow)])
def test_on_the_real_engine_it_compares_ours_with_vanilla(tmp_path, name):
    pytest.importorskip("vllm")
    systems = ("--system", "vanilla", "--system", name)
    result = dynasor("bench", "online", *LIVE, *systems, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    vanilla, other = report["systems"]
    assert (vanilla["name"], other["name"]) == ("vanilla", name)
    assert other["tokens"] <= vanilla["tokens"]  # all of these few queries may be hard
    for system in (vanilla, other):
        assert system["rates"][0]["rate"] == 0.5
        assert all(row["queries"] > 0 for row in system["rates"])
        assert all(row["preemptions"] == 0 for row in system["rates"])
        assert all(0 < row["kv_peak"] < 1 for row in system["rates"])
        assert all(0 <= row["generator_cpu"] < 0.5 for row in system["rates"])
    assert set(report["unloaded"]) == {f"level {level}" for level in range(1, 6)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_engine_that_dies_leaves_one_line_and_the_results(tmp_path):
    pytest.importorskip("vllm")
    process = subprocess.Popen(
        command(
            "bench", "online", *LIVE, "--system", "vanilla", "--duration", "60", "--out", tmp_path
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"VLLM_LOGGING_LEVEL": "CRITICAL"},
    )
    kept = tmp_path / "completions.jsonl"
    while not kept.exists() or kept.read_bytes().count(b"\n") < 2:
        time.sleep(0.1)
        assert process.poll() is None, process.communicate()
    for child in psutil.Process(process.pid).children(recursive=True):
        if "EngineCore" in "".join(child.cmdline()):
            child.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    (line,) = [text for text in errors.splitlines() if text.startswith("dynasor: ")]
    assert "died" in line
    assert f"kept in {tmp_path}" in line
    assert kept.read_bytes().count(b"\n") >= 2
