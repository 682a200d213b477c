"""The guard around the algebra: deadlines, crashes, restarts, hostile answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from certaindex import equivalence as module
from certaindex import equivalence_workers as workers
from certaindex.equivalence import (
    AnswerEquivalence,
)
from certaindex.equivalence_process import EquivalenceProcess, WorkerLost

TOWER = r"9^{9^{9^9}}"
HOSTILE = [
    TOWER,
    "9" * 1_000_000,
    "x+" * 500_000,
    "{" * 900,
    "x" + "!" * 40,
    r"\sum_{n=1}^{999999999} \frac{1}{n^n}",
    r"\frac{1}{0}",
    "__import__('os').system('touch HACKED')",
    "().__class__.__bases__[0].__subclasses__()",
    r"\input{/etc/passwd}",
    "lambda: 0",
    "\0\0\0",
    "\ud800",
    '"\n{"new": "1"}\n',
    "true\ntrue\ntrue",
    "1e999999999",
]
MORE_HOSTILE = [  # of the same kinds; each that runs into its deadline costs two workers
    "9**9**9**9",
    "x+" * 480 + "1",
    "(" * 450 + "x" + ")" * 450,
    r"\frac{" * 150 + "x",
    r"\sqrt{" * 140 + "x" + "}" * 140,
    "99999999" + "!" * 3,
    r"\int_0^1 x^{x^x} dx",
    r"\prod_{n=1}^{99999999} n",
    r"\lim_{x\to 0} \frac{\sin(\tan x)-\tan(\sin x)}{x^7}",
    r"(x+y+z+w)^{5000}",
    r"\binom{99999999}{4444444}",
    "x^{" * 200 + "x" + "}" * 200,
    "\\begin{pmatrix}" + "1&" * 300 + "\\end{pmatrix}",
    ",".join(f"x^{{{i}}}" for i in range(100)),
    "\\left" * 180,
    "0." + "\\overline{" + "3" * 900 + "}",
]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(HOSTILE, id="some"),
        pytest.param(HOSTILE + MORE_HOSTILE, id="all", marks=pytest.mark.slow),
    ],
)
def test_hostile_answers_cost_bounded_time_and_the_next_call_works(answers: list[str]) -> None:
    with AnswerEquivalence(deadline=0.5) as equivalence:
        for answer in answers:
            assert equivalence.same(answer, answer)
            assert equivalence.same_as_any(answer, ["y+7", r"\sqrt{7}"]) is None
            equivalence.same(answer, TOWER)
        assert not Path("HACKED").exists()
        assert equivalence.stats.timeouts + equivalence.stats.crashes < len(answers)
    with AnswerEquivalence(deadline=20.0) as equivalence:
        assert not equivalence.same("9" * 1_000_000, "8" * 1_000_000)
        assert equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")


def test_a_timeout_is_counted_and_the_culprit_is_not_tried_again() -> None:
    with AnswerEquivalence(deadline=0.5) as equivalence:
        assert not equivalence.same(TOWER, "x+1")
        after = equivalence.stats
        assert after.timeouts == 1
        assert after.restarts >= 1
        assert not equivalence.same(TOWER, "x+1")
        assert not equivalence.same(TOWER, "x+2")
        assert not equivalence.same("x+3", TOWER)
        assert equivalence.stats.slow == after.slow
        assert equivalence.stats.cached == after.cached + 3


def test_verdicts_are_cached_in_either_order() -> None:
    with AnswerEquivalence(deadline=20.0) as equivalence:
        assert equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
        assert equivalence.same(r"2 \sqrt{2}", r"$\sqrt{8}$")
        assert equivalence.same("3", "3.0")
        stats = equivalence.stats
    assert (stats.slow, stats.cached, stats.fast, stats.timeouts) == (1, 1, 1, 0)


def test_the_cache_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_VERDICTS", 2)
    with AnswerEquivalence(deadline=20.0) as equivalence:
        for constant in (1, 2, 3, 1):
            equivalence.same(f"x+{constant}", "y")
        assert equivalence.stats.slow == 4


def test_same_as_any_prefers_what_it_knows_and_names_the_first() -> None:
    with AnswerEquivalence(deadline=20.0) as equivalence:
        assert equivalence.same_as_any("0.5", [r"\sin(x)", "1/2"]) == 1
        assert equivalence.stats.slow == 0
        assert equivalence.same_as_any(r"\sqrt{8}", ["x", "y", r"2\sqrt{2}", r"8^{1/2}"]) == 2
        assert equivalence.stats.slow == 3
        assert equivalence.same_as_any("5", []) is None


def test_a_killed_worker_is_replaced() -> None:
    with AnswerEquivalence(deadline=20.0) as equivalence:
        assert equivalence.worker_pid is None
        assert equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
        first = equivalence.worker_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert equivalence.same(r"\sqrt{12}", r"2\sqrt{3}")
        assert equivalence.worker_pid != first
        assert equivalence.stats.restarts == 1


def test_a_worker_killed_during_a_comparison_gets_a_second_chance() -> None:
    with AnswerEquivalence(deadline=30.0) as equivalence:
        assert equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
        first = equivalence.worker_pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        verdicts: list[bool] = []
        thread = threading.Thread(
            target=lambda: verdicts.append(equivalence.same(r"\sqrt{12}", r"2\sqrt{3}"))
        )
        thread.start()
        os.kill(first, signal.SIGKILL)
        thread.join()
        assert verdicts == [True]
        assert equivalence.stats.crashes == 0


def test_a_stopped_worker_costs_a_deadline() -> None:
    with AnswerEquivalence(deadline=0.5) as equivalence:
        equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
        pid = equivalence.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert not equivalence.same("x", "x+1")
        assert equivalence.stats.timeouts == 1
        assert equivalence.worker_pid != pid


def test_a_worker_ignores_ctrl_c() -> None:
    with AnswerEquivalence(deadline=20.0) as equivalence:
        assert equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
        pid = equivalence.worker_pid
        assert pid is not None
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGINT)
        assert equivalence.same(r"\sqrt{12}", r"2\sqrt{3}")
        assert equivalence.worker_pid == pid


def test_close_ends_the_worker_and_may_be_repeated() -> None:
    equivalence = AnswerEquivalence(deadline=20.0)
    equivalence.same(r"\sqrt{8}", r"2\sqrt{2}")
    pid = equivalence.worker_pid
    assert pid is not None
    equivalence.close()
    equivalence.close()
    assert equivalence.worker_pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_without_a_worker_answers_compare_by_the_cheap_rules(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise WorkerLost("no module named math_verify")

    monkeypatch.setattr(workers, "EquivalenceProcess", broken)
    with AnswerEquivalence() as equivalence:
        for constant in range(5):
            assert not equivalence.same("x", f"x+{constant}")
        assert equivalence.same("0.5", "1/2")
    assert len(caplog.records) == workers.MAX_FAILED_STARTS
    assert "math_verify" in caplog.text


def test_a_worker_that_cannot_import_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # First on the path is the package itself, so that only what it imports can be shadowed.
    (tmp_path / "math_verify.py").write_text("raise ImportError('shadowed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerLost, match="shadowed"):
        EquivalenceProcess()


def test_preloaded_libraries_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent/allocator.so")
    process = EquivalenceProcess()
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"LD_PRELOAD" not in environment
    finally:
        process.kill()
        process.kill()


def test_threads_take_turns() -> None:
    with AnswerEquivalence(deadline=20.0) as equivalence:
        verdicts: dict[int, bool] = {}

        def compare(n: int) -> None:
            verdicts[n] = equivalence.same(f"x+{n}-1", f"x-1+{n}")

        threads = [threading.Thread(target=compare, args=(n,)) for n in range(2, 14)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert verdicts == dict.fromkeys(range(2, 14), True)
        assert equivalence.stats.restarts == 0


@pytest.mark.parametrize("busy", [False, True])
def test_the_worker_ends_with_its_killed_parent(busy: bool) -> None:
    # No main guard and an infinite deadline for the parent: the worker is on its own.
    script = f"""
import threading, time
from certaindex.equivalence import AnswerEquivalence
equivalence = AnswerEquivalence(deadline=3.0)
equivalence.same("x+1", "y")
if {busy}:
    threading.Thread(target=equivalence.same, args=({TOWER!r}, "x"), daemon=True).start()
    time.sleep(0.2)
print(equivalence.worker_pid, flush=True)
time.sleep(600)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert _alive(worker)
        parent.kill()
    # Killed with its parent or by its own alarm; the test's own limit ends this if it is not.
    while _alive(worker):
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_deadline_must_be_positive() -> None:
    with pytest.raises(ValueError, match="deadline"):
        AnswerEquivalence(deadline=0)
