"""The parent's end of the equivalence worker: start, ask within a deadline, kill."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

START_SECONDS = 60.0
"""For the start of the worker: 1 s of imports on an idle machine, much more on a loaded one."""
_CHUNK = 1 << 16


class WorkerLost(Exception):
    """The worker ended by itself, or could not start."""


class WorkerLate(Exception):
    """The worker did not answer within the deadline."""


class EquivalenceProcess:
    """One worker process. Not thread-safe; of no more use after it raised anything.

    Raises:
        WorkerLost: if the process cannot be started.
        WorkerLate: if it is not ready after `START_SECONDS`.
    """

    def __init__(self) -> None:
        self._pending = b""
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "certaindex.equivalence_worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=_environment(),
                process_group=0,  # Ctrl-C in the terminal is for the parent
            )
        except OSError as error:
            raise WorkerLost(str(error)) from error
        if self._popen.stdin is None or self._popen.stdout is None:
            raise AssertionError("Popen was asked for pipes")
        self._input, self._output = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._input, False)
        self._owner = os.getpid()
        try:
            greeting = self._read(time.monotonic() + START_SECONDS)
            if greeting != "ready":
                raise WorkerLost(str(greeting))
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._popen.pid

    @property
    def usable(self) -> bool:
        """Whether the worker lives and this process, not the one it is a fork of, started it."""
        return self._owner == os.getpid() and self._popen.poll() is None

    def ask(self, new: str, others: Sequence[str], deadline: float) -> Iterator[bool]:
        """Verdicts on `new` and each of `others` up to the first that is true.

        Args:
            new: canonical string.
            others: canonical strings.
            deadline: seconds for each comparison.

        Raises:
            WorkerLate, WorkerLost: at the comparison at which it happened.
        """
        request = {"new": new, "others": list(others), "deadline": deadline}
        end = time.monotonic() + deadline
        self._write(json.dumps(request).encode() + b"\n", end)
        for _ in others:
            verdict = self._read(end) is True
            yield verdict
            if verdict:
                return
            end = time.monotonic() + deadline

    def kill(self) -> None:
        """End the worker and wait until it is gone; harmless when repeated."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
        if self._owner == os.getpid():
            self._popen.kill()
            self._popen.wait()
        else:
            self._popen.returncode = 0  # not our child: nothing to wait for, nothing to warn of

    def _write(self, data: bytes, end: float) -> None:
        while data:
            _wait(self._input, select.POLLOUT, end)
            try:
                data = data[os.write(self._input, data[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise WorkerLost("the worker closed its input") from error

    def _read(self, end: float) -> object:
        while b"\n" not in self._pending:
            _wait(self._output, select.POLLIN, end)
            chunk = os.read(self._output, _CHUNK)
            if not chunk:
                raise WorkerLost("the worker ended")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        message: object = json.loads(line)
        return message


def _wait(descriptor: int, event: int, end: float) -> None:
    # poll, because select cannot watch descriptors above 1,023 and a server has many.
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
        raise WorkerLate


def _environment() -> dict[str, str]:
    """Ours, without preloaded libraries (vLLM's allocators), and with this package on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    root = str(Path(__file__).resolve().parent.parent)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([root, inherited] if inherited else [root])
    return environment
