"""Any program that draws whole samples, played on recorded ones in virtual time.

All running samples of a query are written in step, a token each, as in a batch that has room for all
of them; reports, ends and cuts happen at their tokens. So it is seen which sample is first and how far
a weak one came, which a replay of votes (`dynasor.replay`) does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from algorithms.program import Answer, Generation, Program, Progress, Request
from certaindex.stopping import StopRule
from dynasor.errors import DataError
from dynasor.traces import TraceSample


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a query.

    Attributes:
        answer: at the end.
        tokens: output tokens, those of cut samples included.
        samples: finished samples that were counted.
        time: tokens from the first to the last, in step: the latency.
    """

    answer: Answer
    tokens: int
    samples: int
    time: int


@dataclass(slots=True, eq=False)
class _Running:
    request: Request
    sample: TraceSample
    began: int


class _Play:
    """One query at work."""

    def __init__(
        self, program: Program, samples: Sequence[TraceSample], rule: StopRule, wave: int
    ) -> None:
        self._program, self._samples, self._rule, self._wave = program, samples, rule, wave
        self._running: dict[str, _Running] = {}
        self._events: list[tuple[int, int, str]] = []  # heap: time, order, request
        self._order = count()
        self._now = 0
        self._tokens = 0

    def run(self) -> Played:
        """Play it to its end."""
        self._start()
        while self._running:
            self._now, _, name = heappop(self._events)
            if name not in self._running:
                continue  # it was cut
            self._tell(name)
            for cut in self._program.cancelled():
                if cut in self._running:
                    self._end(cut, "aborted")
            if self._stops():
                for name in list(self._running):
                    self._tokens += self._now - self._running.pop(name).began
                break
            self._start()
        program = self._program
        return Played(program.answer(), self._tokens, program.votes().n, self._now)

    def _start(self) -> None:
        for request in self._program.propose(self._wave - len(self._running)):
            if request.kind != "sample" or request.prefix:
                raise DataError(f"{request.id}: only whole samples can be played from a trace")
            if request.index >= len(self._samples):
                raise DataError(f"{request.id}: the trace has only {len(self._samples)} samples")
            running = _Running(request, self._samples[request.index], self._now)
            self._running[request.id] = running
            self._schedule(running)

    def _schedule(self, running: _Running) -> None:
        """The next time that something is heard of a sample."""
        done, end = self._now - running.began, running.sample.tokens
        every = running.request.report_every
        due = min(done + every, end) if every else end
        heappush(self._events, (running.began + due, next(self._order), running.request.id))

    def _tell(self, name: str) -> None:
        running = self._running[name]
        done, sample = self._now - running.began, running.sample
        if done >= sample.tokens:
            self._end(name, sample.finish_reason or "stop")
            return
        confidence = sample.confidence[:done] if sample.confidence else None
        self._program.receive(Progress(name, "", done, confidence))
        self._schedule(running)

    def _end(self, name: str, reason: str) -> None:
        running = self._running.pop(name)
        sample, done = running.sample, self._now - running.began
        whole = reason != "aborted"
        confidence = sample.confidence if whole else (sample.confidence or [])[:done]
        generation = Generation(
            request=name,
            text=(sample.text or "") if whole else "",
            tokens=done,
            finish_reason="length" if reason == "length" else "stop" if whole else "aborted",
            confidence=confidence,
            logprobs=sample.logprobs if whole else None,
        )
        self._tokens += done
        self._program.receive(generation)

    def _stops(self) -> bool:
        votes = self._program.votes()
        return votes.n > 0 and self._rule.decide(votes).stop is not None


def play(program: Program, samples: Sequence[TraceSample], rule: StopRule, *, wave: int) -> Played:
    """Play a query.

    Args:
        program: a fresh one, whose requests are whole samples.
        samples: request `i` gets the `i`-th.
        rule: when it stops.
        wave: samples at once.

    Raises:
        DataError: if the program asks for what was not recorded.
    """
    return _Play(program, samples, rule, wave).run()
