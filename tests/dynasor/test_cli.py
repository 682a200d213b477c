"""The command line as a user meets it.

Where a process of its own adds nothing but its imports, `run_here` spares them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from dynasor.cli import app
from dynasor.errors import MissingExtra

SPLITS = [
    "aaaaaaaaaaaa",
    "ababcababcab",
    "abcdefghijkl",
    "aabaaabaaaab",
    "bbbbbbbbbbbb",
    "aabbaabbaabb",
]


def dynasor(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "dynasor.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | environment,
    )


@pytest.fixture
def recorded(tmp_path):
    """A suite of six questions and a trace of twelve samples of each."""
    suite, traces = tmp_path / "suite.jsonl", tmp_path / "traces.jsonl"
    with suite.open("w") as questions, traces.open("w") as samples:
        for number, answers in enumerate(SPLITS):
            row = {"id": f"q{number}", "question": f"what is {number}?", "answer": "0"}
            questions.write(json.dumps(row) + "\n")
            for index, letter in enumerate(answers):
                answer = str(ord(letter) - ord("a"))  # numbers compare without computer algebra
                sample = {
                    "query": f"q{number}",
                    "sample": index,
                    "gold": "0",
                    "answer": answer,
                    "text": f"thinking, thinking: \\boxed{{{answer}}}",
                    "tokens": 20 + index,
                    "finish_reason": "stop",
                }
                samples.write(json.dumps(sample) + "\n")
    return suite, traces


def bench(run, recorded, out, *more):
    suite, traces = recorded
    return run(
        "bench", suite, "--engine", "replay", "--traces", traces, "-n", 12, "--extractor", "boxed",
        "--rule", "adaptive-consistency:0.9", "--out", out, "--json", *more,
    )  # fmt: skip


def table(result):
    systems = json.loads(result.stdout)["systems"]
    return [{key: value for key, value in s.items() if key != "seconds"} for s in systems]


def test_help_lists_the_commands():
    result = dynasor("--help")
    assert result.returncode == 0
    for command in ("solve", "bench", "record", "replay", "rules"):
        assert command in result.stdout


def test_rules_as_json_can_all_be_parsed(run_here):
    rows = json.loads(run_here("rules", "--json").stdout)
    names = {row["name"] for row in rows}
    assert {"default", "fixed", "certaindex", "esc", "sprt", "bayes-factor"} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", " "], "QUESTION is empty"),
        (["solve", "x", "--samples", "0"], "algorithm.samples = 0"),
        (["solve", "x", "--rule", "luck"], "allocator.rule = 'luck'"),
        (["solve", "x", "--engine", "openai"], "engine.base_urls is empty"),
        (["solve", "x", "--model", "./nowhere"], "no model at './nowhere'"),
        (["bench", "nowhere"], "no suite 'nowhere'"),
        (["bench", "embedded", "--limit", "0"], "--limit = 0"),
        (["bench", "embedded", "--budget", "2"], "allocator.budget = 2"),
        (["bench", "embedded", "--budget", "0.5", "--no-baseline"], "--no-baseline"),
        (["bench", "embedded", "--rule", "luck"], "rule 'luck'"),
        (["record", "embedded", "--out", "x", "--algorithm", "rebase"], "asks for steps or probes"),
        (["record", "embedded", "--out", "x", "--algorithm", "dynasor-cot"], "steps or probes"),
        (["replay", "nowhere.jsonl"], "nowhere.jsonl"),
        (["replay", "nowhere.jsonl", "--budget", "0"], "--budget = 0"),
    ],
)
def test_wrong_input_is_one_clear_line(run_here, arguments, message):
    result = run_here(*arguments)
    assert result.returncode == 2
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("dynasor: ")]
    assert message in line
    assert "Traceback" not in result.stderr


def test_bench_prints_a_table_and_writes_a_report(recorded, tmp_path):
    out = tmp_path / "run"
    result = bench(dynasor, recorded, out)
    assert result.returncode == 0, result.stderr
    full, rule = table(result)
    assert full["samples"] == 12
    assert rule["tokens_ratio"] < 0.8
    assert rule["accuracy"] is not None
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 4
    for name in ("frontier.png", "samples.png", "calibration.png", "stops.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_replay_prints_what_the_documentation_says(run_here, recorded):
    result = run_here(
        "replay", recorded[1], "--rule", "default", "--rule", "fixed:4", "--orders", "20", "--json"
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["queries"] == 6
    for row in report["rules"]:
        assert {"rule", "accuracy", "tokens", "tokens_ratio", "samples", "agreement"} <= row.keys()
    assert report["rules"][1]["samples"] == 4


def test_record_makes_a_trace_that_replay_reads(run_here, recorded, tmp_path):
    suite, traces = recorded
    out = tmp_path / "recorded"
    result = dynasor(
        "record",
        suite,
        "--engine",
        "replay",
        "-n",
        3,
        "--out",
        out,
        DYNASOR_ENGINE__TRACES=str(traces),
    )
    assert result.returncode == 0, result.stderr
    replayed = run_here("replay", out / "samples.jsonl", "--rule", "fixed:2", "--json")
    assert json.loads(replayed.stdout)["max_samples"] == 3


@pytest.mark.parametrize("name", ["best-of-n", "deepconf", "short-m-of-k"])
def test_programs_whose_requests_are_samples_can_be_recorded(
    run_here, recorded, tmp_path, name, monkeypatch
):
    suite, traces = recorded
    monkeypatch.setenv("DYNASOR_ENGINE__TRACES", str(traces))
    out = tmp_path / "recorded"
    done = run_here(
        "record", suite, "--engine", "replay", "-n", 4, "--out", out, "--algorithm", name
    )
    assert done.returncode == 0, done.stderr
    assert lines(out / "samples.jsonl") == 4 * len(SPLITS), "none is cut, none is missing"


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def interrupt(recorded, out, how, after):
    """Start the benchmark slowly, and send a signal once so many samples are on disk."""
    suite, traces = recorded
    process = subprocess.Popen(
        [sys.executable, "-m", "dynasor.cli", "bench", str(suite), "--engine", "replay",
         "--traces", str(traces), "-n", "12", "--extractor", "boxed",
         "--rule", "adaptive-consistency:0.9", "--out", str(out), "--json"],
        env=os.environ | {"DYNASOR_ENGINE__TOKENS_PER_SECOND": "60"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell starts its background jobs with Ctrl-C ignored, and the tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    files = [out / "full" / "samples.jsonl", out / "rule-1" / "samples.jsonl"]
    while sum(map(lines, files)) < after and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.parametrize(
    "after", [pytest.param(5, marks=pytest.mark.slow), 40, pytest.param(76, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_and_ends_in_the_same_table(run_here, recorded, tmp_path, after):
    unbroken = bench(run_here, recorded, tmp_path / "unbroken")
    out = tmp_path / "killed"
    code, _ = interrupt(recorded, out, signal.SIGKILL, after)
    assert code == -signal.SIGKILL
    files = [out / name / "samples.jsonl" for name in ("full", "rule-1")]
    kept = {path: path.read_bytes() for path in files if path.exists()}
    resumed = bench(run_here, recorded, out)
    assert resumed.returncode == 0, resumed.stderr
    assert table(resumed) == table(unbroken)
    for path, before in kept.items():
        whole = before[: before.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(whole), "no finished sample is lost"
    for path in files:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        finished = Counter((r["query"], r["sample"]) for r in rows if r["finish_reason"] == "stop")
        assert set(finished.values()) == {1}, "no finished sample is repeated"


def test_ctrl_c_stops_cleanly_and_keeps_what_is_done(run_here, recorded, tmp_path):
    out = tmp_path / "stopped"
    code, errors = interrupt(recorded, out, signal.SIGINT, 10)
    assert code == 130
    assert "Traceback" not in errors
    assert "dynasor: stopped" in errors
    resumed = bench(run_here, recorded, out)
    assert resumed.returncode == 0
    assert "going on with" in resumed.stderr


def test_another_run_in_the_folder_is_refused(run_here, recorded, tmp_path):
    out = tmp_path / "run"
    assert bench(run_here, recorded, out).returncode == 0
    other = bench(run_here, recorded, out, "--seed", 2)
    assert other.returncode == 2
    assert "holds a run with other settings" in other.stderr
    assert bench(run_here, recorded, out, "--seed", 2, "--fresh").returncode == 0


def test_failed_requests_make_the_exit_code_1(run_here, recorded, tmp_path):
    result = bench(run_here, recorded, tmp_path / "run", "-n", 14)
    assert result.returncode == 1
    assert json.loads(result.stdout)["systems"][0]["failed"] == 12


@pytest.mark.parametrize("name", ["short-m-of-k", "deepconf"])
def test_another_program_with_and_without(run_here, recorded, tmp_path, name):
    both = bench(run_here, recorded, tmp_path / "both", "--algorithm", name, "--json")
    assert both.returncode == 0, both.stderr
    told = json.loads(both.stdout)
    assert told["algorithm"] == name
    assert len(told["systems"]) == 2
    suite, traces = recorded
    full = run_here(
        "bench", suite, "--engine", "replay", "--traces", traces, "-n", 12, "--extractor", "boxed",
        "--algorithm", name, "--no-certaindex", "--out", tmp_path / "full", "--json",
    )  # fmt: skip
    assert full.returncode == 0, full.stderr
    (alone,) = json.loads(full.stdout)["systems"]
    assert alone["tokens"] == told["systems"][0]["tokens"]
    assert alone["name"].startswith("full budget")


@pytest.mark.parametrize("name", ["rebase", "mcts", "dynasor-cot"])
def test_a_trace_cannot_answer_steps_or_probes(run_here, recorded, tmp_path, name):
    wrong = bench(run_here, recorded, tmp_path, "--algorithm", name)
    assert wrong.returncode == 2
    assert "asks for steps or probes, which no trace holds" in wrong.stderr


def reward(prompt, text):
    """A reward that likes the right answer of `recorded`."""
    return 0.9 if "{0}" in text else 0.2


def test_best_of_n_is_replayed_with_rewards_of_the_recorded_texts(run_here, recorded, tmp_path):
    done = bench(
        run_here, recorded, tmp_path, "--algorithm", "best-of-n",
        "--set", "algorithm.reward.kind=function", "--set", f"algorithm.reward.model={__name__}:reward",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    full, _ = table(done)
    assert full["accuracy"] == 5 / 6, "right wherever any sample is"


def test_rules_do_not_go_with_no_certaindex(run_here, recorded, tmp_path):
    wrong = bench(run_here, recorded, tmp_path, "--no-certaindex", "--rule", "fixed:2")
    assert wrong.returncode == 2
    assert "--no-certaindex: nothing is left to run" in wrong.stderr


def test_without_ray_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "serving.ray_command", raising=False)
    monkeypatch.delitem(sys.modules, "serving.ray_app", raising=False)
    for name in ("ray_replica", "ray_serve", "ray_router"):
        monkeypatch.delitem(sys.modules, f"dynasor.engines.{name}", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'dynasor-llm\[serve,ray\]'"):
        app(["deploy"], standalone_mode=False)
