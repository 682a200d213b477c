"""One run of the online benchmark on a real engine: traffic in, completions out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynasor.bench.load_generator import GeneratorReport, LoadGenerator
from dynasor.bench.service import Service
from dynasor.bench.slo import Window
from dynasor.bench.workload import UNFINISHED, Arrival, Completion
from dynasor.errors import DynasorError
from dynasor.outcome import Outcome

Keep = Callable[[Completion], None]


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What came of a run.

    Attributes:
        generator: what the load generator says of itself.
        seconds: from the first arrival to the last answer that counts.
    """

    generator: GeneratorReport
    seconds: float


async def run_live(
    service: Service,
    arrivals: Sequence[Arrival],
    window: Window,
    *,
    patience: float,
    keep: Keep,
) -> LiveRun:
    """Send the arrivals at their times until all that count are answered; then the rest is cut.

    Args:
        service: answers.
        arrivals: in order of time.
        window: which of them count.
        patience: seconds after the end of the window after which what is left counts as unfinished.
        keep: is given every completion as it comes.

    Raises:
        EngineError: if the engine dies; what was kept until then remains.
    """
    try:
        async with (
            LoadGenerator([arrival.time for arrival in arrivals]) as generator,
            asyncio.TaskGroup() as tasks,
        ):
            run = _Run(service, arrivals, window, generator, keep, tasks)
            return await run.drive(patience)
    except BaseExceptionGroup as group:
        known, others = group.split(DynasorError)
        if known is None or others is not None:
            raise
        raise _first(known) from group


def _first(group: BaseExceptionGroup[DynasorError]) -> DynasorError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Run:
    """The state of one run."""

    def __init__(
        self,
        service: Service,
        arrivals: Sequence[Arrival],
        window: Window,
        generator: LoadGenerator,
        keep: Keep,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._service = service
        self._arrivals = arrivals
        self._window = window
        self._generator = generator
        self._keep = keep
        self._group = tasks
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: dict[int, float] = {}
        self._stamps: dict[int, asyncio.Future[float]] = {}
        self._left = {i for i, arrival in enumerate(arrivals) if window.holds(arrival.time)}

    async def drive(self, patience: float) -> LiveRun:
        """Follow the load generator to its end."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        if not self._left:
            self._generator.finish()
        timer = loop.call_later(self._window.end + patience, self._generator.finish)
        try:
            async for event in self._generator.events():
                if "send" in event:
                    self._send(event["send"])
                else:
                    self._stamps[event["done"]].set_result(event["latency"])
        finally:
            timer.cancel()
        now = loop.time()
        for task in self._tasks:
            task.cancel()
        for number in sorted(self._left & self._sent.keys()):
            waited = now - self._sent[number]
            self._keep(Completion(self._arrivals[number], waited, None, None, 0, 0, UNFINISHED))
        return LiveRun(self._generator.report(), now - begin)

    def _send(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        self._sent[number] = loop.time()
        self._stamps[number] = loop.create_future()
        task = self._group.create_task(self._serve(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, number: int) -> None:
        arrival = self._arrivals[number]
        outcome = await self._service.answer(arrival)
        self._generator.answered(number)
        latency = await self._stamps[number]
        correct = await self._service.is_right(arrival, outcome)
        self._keep(_completion(arrival, outcome, latency, correct))
        self._left.discard(number)
        if not self._left:
            self._generator.finish()


def _completion(
    arrival: Arrival, outcome: Outcome, latency: float, correct: bool | None
) -> Completion:
    return Completion(
        arrival=arrival,
        latency=latency,
        first_service=None,
        correct=correct,
        tokens=outcome.bill.output,
        samples=outcome.samples,
        reason=outcome.reason,
    )
