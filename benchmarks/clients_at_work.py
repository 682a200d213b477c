"""Clients that ask for as long as something happens to the server, and what became of their queries."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai

QUESTION = (
    "Mia has 14 shells. She finds 8 more. She gives away 5. How many shells does Mia have now?"
)
SAMPLES = 16
PATIENCE = 300.0
"""Seconds that anything is waited for."""


@dataclass
class Work:
    """What the clients have come to.

    Attributes:
        seen: how the queries ended, and samples that were lost of those answered.
        ends: when a query was answered, seconds on the monotonic clock.
        prompts: billed prompt tokens over samples, of the queries that lost none. All ask the same, so
            it is one number, unless a request is billed for each time that it was run.
    """

    seen: Counter[str] = field(default_factory=Counter)
    ends: list[float] = field(default_factory=list)
    prompts: set[float] = field(default_factory=set)

    def told(self) -> dict[str, Any]:
        """For `report`."""
        return {"ends": dict(self.seen), "prompt_tokens_a_sample": sorted(self.prompts)}

    def longest_silence(self, begin: float) -> float | None:
        """Seconds without any answer from then on, at most; None if there was none at all."""
        after = [begin, *sorted(end for end in self.ends if end > begin)]
        return max((later - sooner for sooner, later in pairwise(after)), default=None)


@asynccontextmanager
async def at_work(url: str, clients: int, patience: float = 600.0) -> AsyncIterator[Work]:
    """So many clients, each asking again once it is answered; at the end the last answers are awaited.

    Args:
        url: of the server, with /v1.
        clients: that ask at once.
        patience: seconds that one waits for an answer.
    """
    work, over = Work(), asyncio.Event()
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, timeout=patience
    ) as client:

        async def play() -> None:
            while not over.is_set():
                await _ask(client, work)

        players = [asyncio.create_task(play()) for _ in range(clients)]
        try:
            yield work
        finally:
            over.set()
            await asyncio.gather(*players)


async def _ask(client: openai.AsyncOpenAI, work: Work) -> None:
    """One query with its whole budget, so that it has samples in flight and finished ones."""
    plan = {"stop": {"rule": f"fixed:{SAMPLES}"}, "budget": {"samples": SAMPLES}}
    try:
        made: Any = await client.chat.completions.create(
            model="embedded:self-consistency",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"dynasor": plan},
        )
    except openai.OpenAIError as error:
        work.seen[f"failed: {type(error).__name__}"] += 1
        await asyncio.sleep(0.5)
        return
    work.ends.append(time.monotonic())
    told = made.dynasor
    work.seen["answered"] += 1
    work.seen["samples that were lost"] += told["failed"]
    if told["samples"] + told["failed"] != SAMPLES:
        work.seen["billed wrongly"] += 1
    if not told["failed"]:
        work.prompts.add(made.usage.prompt_tokens / SAMPLES)


async def seconds_until(
    done: Callable[[], bool], least: float = 0.0, every: float = 0.2
) -> float | None:
    """Wait for it, and in any case for so long; the seconds until it was so, None if it never was.

    Args:
        done: asked on a thread, for it may take its time; to the end, also when it was so once.
        least: seconds to go on asking at least.
        every: seconds between two looks.
    """
    begin, reached = time.monotonic(), None
    while (now := time.monotonic() - begin) < PATIENCE:
        if await asyncio.to_thread(done) and reached is None:
            reached = time.monotonic() - begin
        if reached is not None and now >= least:
            break
        await asyncio.sleep(every)
    return reached


def report(name: str, parts: list[dict[str, Any]], out: Path | None) -> set[str]:
    """Tell how the queries of all parts ended; the ends that must not be.

    Args:
        name: of the parts.
        parts: each with what `Work.told` says, besides what it says itself.
        out: file for it, or None.
    """
    ends: Counter[str] = Counter()
    for one in parts:
        ends.update(one["ends"])
    if len({tokens for one in parts for tokens in one["prompt_tokens_a_sample"]}) > 1:
        ends["billed for other prompts than others"] += 1
    text = json.dumps({name: parts, "ends": dict(ends)}, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")
    return set(ends) - {"answered", "samples that were lost"}
