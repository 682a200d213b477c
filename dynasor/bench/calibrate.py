"""Measure a real engine's steps under different loads, and fit how long a step takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import NamedTuple

from algorithms.program import Generation, Request, Sampling
from dynasor.engines.calibration import Calibration
from dynasor.engines.step_time import Step, StepTime
from dynasor.engines.vllm import VLLMEngine
from dynasor.errors import EngineError

LONGEST_PROMPT = 2048
LONGEST_OUTPUT = 256
LONE_REQUESTS = 12
"""Requests that run alone, to see what a request costs besides its steps."""
_LOGPROBS_AT = 0.4
"""Share of the longest prompt with which log-probabilities are asked for too."""
_TOKENS_A_WORD = 4  # at most: a number of three digits and a space


class Load(NamedTuple):
    """Requests that are sent at once.

    Attributes:
        requests: how many.
        words: of each prompt, drawn between half of this and this.
        output: tokens of each, drawn likewise.
        logprobs: whether they want log-probabilities.
    """

    requests: int
    words: int
    output: int
    logprobs: bool = False


def loads(max_running: int, max_model_len: int) -> Iterator[Load]:
    """Batches from one request to more than fit at once, with short and with long prompts.

    What does not fit in the batch is admitted as others end, so prompts are then computed beside
    requests that decode. One load of each size is sent a second time, with log-probabilities.
    """
    prompt = min(LONGEST_PROMPT, max_model_len // 2)
    output = min(LONGEST_OUTPUT, max_model_len // 4)
    sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    for requests in [size for size in sizes if size < max_running] + [max_running]:
        for share in (0.1, 0.4, 1.0):
            words = max(2, int(share * prompt) // _TOKENS_A_WORD)
            yield Load(requests, words, output)
            if share == _LOGPROBS_AT:
                yield Load(requests, words, output, logprobs=True)
    for share in (0.1, 1.0):
        yield Load(3 * max_running, max(2, int(share * prompt) // _TOKENS_A_WORD), output // 2)


async def calibrate(
    engine: VLLMEngine, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> tuple[Calibration, list[Step]]:
    """Load an engine that nobody else uses, and fit its steps.

    Args:
        engine: started, with a scheduler that counts.
        seed: of prompts and lengths.
        progress: called with (loads done, loads in all).

    Returns:
        the calibration, and the steps that it rests on.

    Raises:
        EngineError: if the engine fails.
        DataError: if there are too few steps for a fit.
    """
    sizes = engine.sizes()
    sender = _Sender(engine, random.Random(seed))
    await sender.send(Load(2, 8, 8))  # the first requests warm the engine up
    await engine.steps()
    steps: list[Step] = []
    every = list(loads(sizes.max_running, sizes.max_model_len))
    for done, load in enumerate(every):
        await sender.send(load)
        steps += [
            Step(*step, logprobs=step[1] if load.logprobs else 0) for step in await engine.steps()
        ]
        if progress:
            progress(done + 1, len(every))
    fit = StepTime.fit(steps)
    return Calibration(
        model=engine.capacity().model,
        hardware=sizes.hardware,
        step_time=fit,
        steps=len(steps),
        per_request=await _per_request(sender, engine),
        max_running=sizes.max_running,
        max_batched_tokens=sizes.max_batched_tokens,
        kv_blocks=sizes.kv_blocks,
        block_size=sizes.block_size,
    ), steps


async def _per_request(sender: _Sender, engine: VLLMEngine) -> float:
    """Seconds of a lone request beyond those of its steps, the median of some."""
    beyond = []
    for _ in range(LONE_REQUESTS):
        start = perf_counter()
        await sender.send(Load(1, 16, 32))
        seconds = perf_counter() - start
        steps = [step[0] for step in await engine.steps()]
        if steps:
            # The last step is not in the log, for none follows it.
            beyond.append(seconds - sum(steps) - median(steps))
    return max(0.0, median(beyond)) if beyond else 0.0


class _Sender:
    """Sends requests with prompts of random numbers, which share no prefix."""

    def __init__(self, engine: VLLMEngine, draw: random.Random) -> None:
        self._engine = engine
        self._draw = draw
        self._sent = 0

    async def send(self, load: Load) -> list[Generation]:
        """Send a load and wait for all of it."""
        return await asyncio.gather(*(self._one(load) for _ in range(load.requests)))

    async def _one(self, load: Load) -> Generation:
        draw = self._draw
        self._sent += 1
        words = draw.randint(max(1, load.words // 2), load.words)
        request = Request(
            f"calibrate-{self._sent}",
            f"calibrate-{self._sent}",
            " ".join(str(draw.randint(100, 999)) for _ in range(words)),
            Sampling(
                max_tokens=draw.randint(max(1, load.output // 2), load.output),
                logprobs=load.logprobs,
            ),
        )
        async for event in self._engine.submit(request):
            if isinstance(event, Generation):
                if event.finish_reason == "error":
                    raise EngineError(f"the engine failed a request of the load: {event.error}")
                return event
        raise EngineError("the engine ended a request without an answer")
