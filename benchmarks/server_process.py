"""A server as processes of its own, which end with whoever started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# Reads from a pipe that nobody writes to: it ends when the process at its other end is gone.
_WATCH = """
import os, signal, sys
sys.stdin.read()
os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


@contextmanager
def started(
    command: Sequence[str], log: Path, environment: Mapping[str, str], patience: float = 60.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own; its whole group ends with this context.

    Also if this process is killed, by SIGKILL too: a second process watches it. What leaves the group
    must see to itself, as Ray's processes and vLLM's engine with our scheduler do.

    Args:
        command: with its arguments.
        log: where it writes.
        environment: in addition to this process's.
        patience: seconds that it has to end after SIGTERM.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    watch = [sys.executable, "-I", "-S", "-c", _WATCH, str(process.pid)]
    with subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield process
        finally:
            _end(process, patience)
            watcher.kill()


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
