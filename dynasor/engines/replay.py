"""A recorded trace in an engine's clothes: each request gets the recorded sample of its index.

The trace's queries must have the ids of the programs that ask. Which sample a request gets depends
on its program and index (and, with a seed, on a shuffle drawn from the seed and the program), never
on timing, so runs are reproducible.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path

from algorithms.program import Event, Generation, Progress, Request
from dynasor.engines.base import Capacity
from dynasor.errors import EngineError
from dynasor.scheduling.gang import Hints
from dynasor.traces import TraceSample, read_traces

TICK = 0.01
"""Seconds between two looks at the clock of a sample that is played at a speed."""


class ReplayEngine:
    """Plays a trace file back.

    Args:
        traces: `.jsonl` or `.jsonl.gz` in the trace format, or samples already read.
        tokens_per_second: speed of each sample, or None for as fast as possible.
        max_running: requests at once; others wait their turn.
        shuffle: play each query's samples in an order drawn from this seed; None keeps the file's.
    """

    def __init__(
        self,
        traces: Path | Iterable[TraceSample],
        *,
        tokens_per_second: float | None = None,
        max_running: int = 4096,
        shuffle: int | None = None,
    ) -> None:
        self._traces = traces
        self._speed = tokens_per_second
        self._max_running = max_running
        self._shuffle = shuffle
        self._samples: dict[str, list[TraceSample]] = {}
        self._slots = asyncio.Semaphore(max_running)
        self._cut: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        """Read the trace.

        Raises:
            DataError: if it is not a trace.
            EngineError: if it holds no sample.
        """
        samples = read_traces(self._traces) if isinstance(self._traces, Path) else self._traces
        for sample in samples:
            if sample.finish_reason not in ("aborted", "error"):
                self._samples.setdefault(sample.query, []).append(sample)
        if not self._samples:
            raise EngineError(f"{self._traces} holds no finished sample")
        for query, rows in self._samples.items():
            rows.sort(key=lambda row: row.sample)
            if self._shuffle is not None:
                random.Random(f"{self._shuffle}/{query}").shuffle(rows)

    async def submit(self, request: Request) -> AsyncGenerator[Event, None]:
        """Play the sample of the request's index."""
        rows = self._samples.get(request.program, [])
        if request.index >= len(rows):
            reason = f"{request.program} has {len(rows)} recorded samples, not {request.index + 1}"
            yield Generation(request.id, "", 0, finish_reason="error", error=reason)
            return
        sample = rows[request.index]
        cut = self._cut[request.id] = asyncio.Event()
        try:
            async with self._slots:
                done = 0
                async for done in self._clock(sample.tokens, request.report_every, cut):
                    if request.report_every and 0 < done < sample.tokens:
                        yield _progress(request.id, sample, done)
            if cut.is_set() and done < sample.tokens:
                yield Generation(request.id, _part(sample, done), done, finish_reason="aborted")
                return
        finally:
            del self._cut[request.id]
        yield Generation(
            request=request.id,
            text=_text(sample),
            tokens=sample.tokens,
            prompt_tokens=sample.prompt_tokens or 0,
            finish_reason="length" if sample.finish_reason == "length" else "stop",
            confidence=sample.confidence,
            logprobs=sample.logprobs,
        )

    async def _clock(
        self, tokens: int, report_every: int | None, cut: asyncio.Event
    ) -> AsyncIterator[int]:
        """Tokens decoded so far, until all are or the sample is cut."""
        if self._speed is None:
            done = 0
            for due in (*range(report_every or tokens, tokens, report_every or 1), tokens):
                # Let the loop turn once, as a real engine would; a cut may come in between.
                await asyncio.sleep(0)
                if cut.is_set():
                    break
                done = due
                yield done
            return
        loop = asyncio.get_running_loop()
        start = loop.time()
        done = 0
        while done < tokens and not cut.is_set():
            left = (tokens - done) / self._speed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cut.wait(), timeout=min(TICK, left))
            done = min(tokens, int((loop.time() - start) * self._speed))
            yield done

    async def abort(self, ids: Iterable[str]) -> None:
        """Cut samples that play or wait."""
        for request in ids:
            if request in self._cut:
                self._cut[request].set()

    def hint(self, gang: str, hints: Hints) -> None:
        """Nothing to order."""

    def capacity(self) -> Capacity:
        """As many requests as were asked for, of the recorded model."""
        model = next((rows[0].model for rows in self._samples.values() if rows[0].model), "replay")
        return Capacity(self._max_running, model, supports_seed=True)

    async def close(self) -> None:
        """Nothing to free."""


def _text(sample: TraceSample) -> str:
    """The recorded text; traces that kept only the answer get it in a box."""
    if sample.text is not None:
        return sample.text
    return f"\\boxed{{{sample.answer}}}" if sample.answer is not None else ""


def _progress(request: str, sample: TraceSample, tokens: int) -> Progress:
    confidence, logprobs = (
        None if values is None else values[:tokens]
        for values in (sample.confidence, sample.logprobs)
    )
    return Progress(request, _part(sample, tokens), tokens, confidence, logprobs)


def _part(sample: TraceSample, tokens: int) -> str:
    if sample.text is None or sample.tokens == 0:
        return ""
    return sample.text[: len(sample.text) * tokens // sample.tokens]
