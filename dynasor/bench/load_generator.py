"""The load generator: a process of its own that sends arrivals at their times.

It neither waits for the engine nor shares a core's Python with it, so that a slow engine cannot slow
the traffic down. Latency is stamped here, from the time at which an arrival was due. The generator
also says how late it was itself and what time of the processor it took.

Lines of JSON. In: `{"times": [...]}`, then the number of each arrival that was answered; the end of
the input ends it. Out: `{"send": i}` as each falls due, `{"done": i, "latency": seconds}` for each
answer, `{"lateness": [...], "cpu": seconds, "wall": seconds}` once the input has ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, process_time
from typing import Any, Self

from dynasor.errors import EngineError

START_DELAY = 0.05
"""Seconds between the start of the clock and time 0, for the pipes to be ready."""
_LINE_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class GeneratorReport:
    """What the load generator says of itself.

    Attributes:
        lateness_p99: seconds by which 99% of the arrivals were sent at the latest after their time.
        lateness_most: of the latest one.
        cpu_share: time of the processor it took, over the time of the run.
    """

    lateness_p99: float
    lateness_most: float
    cpu_share: float


class LoadGenerator:
    """The near end: starts the process, says what is due, and takes what is answered.

    Args:
        times: of the arrivals, seconds from the start, ascending.
    """

    def __init__(self, times: Sequence[float]) -> None:
        self._times = list(times)
        self._process: Process | None = None
        self._report: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        self._process = await create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "dynasor.bench.load_generator",
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_LIMIT,
            env=_environment(),
            process_group=0,  # Ctrl-C in the terminal is for the parent
        )
        self._write({"times": self._times})
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        assert process is not None, "it was entered"
        if self._report is None:
            # Not `process.kill`, which would reap it under the eyes of asyncio's own watcher.
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """`send` and `done` as they come, until `finish` was called.

        Raises:
            EngineError: if the process ends too early.
        """
        process = self._process
        assert process is not None, "it was entered"
        assert process.stdout is not None, "it has pipes"
        while line := await process.stdout.readline():
            event: dict[str, Any] = json.loads(line)
            if "lateness" in event:
                self._report = event
                return
            yield event
        raise EngineError("the load generator ended; was it killed?")

    def answered(self, number: int) -> None:
        """An arrival has its answer."""
        self._write(number)

    def finish(self) -> None:
        """Nothing more will be answered; `events` then ends."""
        assert self._process is not None, "it was entered"
        assert self._process.stdin is not None, "it has pipes"
        self._process.stdin.close()

    def report(self) -> GeneratorReport:
        """What it says of itself, after `events` has ended."""
        assert self._report is not None, "events has ended"
        late = sorted(self._report["lateness"]) or [0.0]
        return GeneratorReport(
            lateness_p99=late[int(0.99 * (len(late) - 1))],
            lateness_most=late[-1],
            cpu_share=self._report["cpu"] / self._report["wall"],
        )

    def _write(self, value: object) -> None:
        assert self._process is not None, "it was entered"
        assert self._process.stdin is not None, "it has pipes"
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(value).encode() + b"\n")


def _environment() -> dict[str, str]:
    """That of this process, without what was set for vLLM's processes; it finds our packages."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


class _Sender:
    """The far end: the loop of the process."""

    def __init__(self) -> None:
        self._pending = b""
        self._open = True

    def run(self) -> None:
        """Send what is due and stamp what is answered until the input ends."""
        times: list[float] = self._first_line()["times"]
        start = monotonic() + START_DELAY
        lateness: list[float] = []
        while self._open:
            if len(lateness) < len(times):
                wait = start + times[len(lateness)] - monotonic()
                if wait <= 0:
                    lateness.append(-wait)
                    _say({"send": len(lateness) - 1})
                    continue
            else:
                wait = None
            for number in self._lines(wait):
                _say({"done": number, "latency": monotonic() - start - times[number]})
        wall = monotonic() - start
        _say({"lateness": lateness, "cpu": process_time(), "wall": wall})

    def _first_line(self) -> Any:
        while self._open:
            for line in self._lines(None):
                return line
        raise SystemExit(0)  # the parent went away before it began

    def _lines(self, wait: float | None) -> list[Any]:
        """Whole lines that have come, after waiting for at most `wait` seconds for any."""
        if not select.select([0], [], [], wait)[0]:
            return []
        chunk = os.read(0, 1 << 16)
        self._open = bool(chunk)
        *whole, self._pending = (self._pending + chunk).split(b"\n")
        return [json.loads(line) for line in whole]


def _say(event: dict[str, Any]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(BrokenPipeError):  # the parent was killed
        _Sender().run()
