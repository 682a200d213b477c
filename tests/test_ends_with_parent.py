"""What is started ends with whoever started it, also if that is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]

# Each starts a process, and one of that process's, and prints the ids of both.
SERVER = """
import sys, time
from pathlib import Path
from benchmarks.server_process import started
log = Path(sys.argv[1]) / "log"
with started(["sh", "-c", "sleep 600 & echo $!; wait"], log, {}) as process:
    while not (told := log.read_text()).endswith("\\n"):
        time.sleep(0.01)
    print(process.pid, told, flush=True)
    time.sleep(600)
"""
ENGINE = """
import multiprocessing, time
from dynasor.scheduling.vllm_hooks import end_with_parent
def run():
    end_with_parent()
    time.sleep(600)
engine = multiprocessing.get_context("fork").Process(target=run, name="EngineCore")
engine.start()
print(engine.pid, flush=True)
engine.join()
"""


@pytest.mark.parametrize("script", [SERVER, ENGINE])
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_who_started_it(script, by, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        start_new_session=True,
    ) as parent:
        started = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert all(map(alive, started))
        parent.send_signal(by)
    while any(map(alive, started)):  # the test's own limit ends this
        time.sleep(0.02)


def alive(process):
    """Whether it runs; nobody may have asked yet how it ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_ends_with_its_context(tmp_path):
    from benchmarks.server_process import started

    stubborn = "trap '' TERM; echo on; while true; do sleep 0.05; done"
    with started(["sh", "-c", stubborn], tmp_path / "log", {}, patience=0.2) as process:
        while not (tmp_path / "log").read_text():
            time.sleep(0.01)
    assert process.wait(timeout=5) == -signal.SIGKILL
