"""An engine that says what a test has written for it, at the test's pace."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from algorithms.program import Event, Generation, Progress, Request, ScoredToken
from dynasor.engines.base import Capacity
from dynasor.errors import EngineError
from dynasor.scheduling.gang import Hints

Say = Callable[[Request], str | None]
"""Text of a request; None: it runs until it is cut."""


def boxed(answer: str = "4") -> Say:
    return lambda request: f"so it is \\boxed{{{answer}}}"


def scored(request: Request, told: str) -> list[ScoredToken]:
    if request.sampling.alternatives is None:
        return []
    likely = tuple((word, -1.0) for word in "abc"[: request.sampling.alternatives])
    return [ScoredToken(word, -0.5, likely) for word in re.findall(r"\S+ ?", told)]


def logprobs(request: Request, each: float, tokens: int) -> list[float] | None:
    return [each] * tokens if request.sampling.logprobs else None


def confidence(request: Request, tokens: int) -> list[float] | None:
    return [1.0] * tokens if request.sampling.top_logprobs else None


@dataclass
class ScriptedEngine:
    """Word by word; dies, fails or refuses on order."""

    say: Say = field(default_factory=boxed)
    logprob: Callable[[Request], float] = lambda request: -0.1
    pause: float = 0.0
    seeds: bool = True
    dead: bool = False
    fails: str | None = None
    refuses: str | None = None
    running: set[str] = field(default_factory=set)
    most_running: int = 0
    cut: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)  # of themselves
    requests: list[Request] = field(default_factory=list)
    hints: dict[str, Hints] = field(default_factory=dict)

    async def start(self) -> None:
        pass

    async def measure(self, request: Request) -> int:
        if self.refuses:
            raise ValueError(self.refuses)
        return len(str(request.prompt).split())

    async def check(self) -> None:
        if self.dead:
            raise EngineError("dead")

    async def submit(self, request: Request) -> AsyncIterator[Event]:
        self.requests.append(request)
        self.running.add(request.id)
        self.most_running = max(self.most_running, len(self.running))
        told, text, each = "", self.say(request), self.logprob(request)
        words = ["hm"] * request.sampling.max_tokens if text is None else text.split(" ")
        try:
            for number, word in enumerate(words, 1):
                await asyncio.sleep(self.pause if text else max(self.pause, 0.005))
                if self.dead:
                    raise EngineError("the engine died")
                if self.fails:
                    yield Generation(
                        request.id, told, number, finish_reason="error", error=self.fails
                    )
                    return
                if request.id in self.cut:
                    yield Generation(request.id, told, number, finish_reason="aborted")
                    return
                told += f"{word} " if number < len(words) else word
                if request.report_every and number % request.report_every == 0:
                    yield Progress(
                        request.id,
                        told,
                        number,
                        confidence(request, number),
                        logprobs(request, each, number),
                        scored(request, told),
                    )
        finally:
            self.running.discard(request.id)
        self.ended.add(request.id)
        reason = "length" if text is None else "stop"
        yield Generation(
            request.id,
            told,
            len(words),
            prompt_tokens=7,
            finish_reason=reason,
            confidence=confidence(request, len(words)),
            logprobs=logprobs(request, each, len(words)),
            scored=scored(request, told),
        )

    async def abort(self, ids: Iterable[str]) -> None:
        self.cut.update(ids)

    def hint(self, gang: str, hints: Hints) -> None:
        self.hints[gang] = hints

    def capacity(self) -> Capacity:
        return Capacity(64, "scripted", supports_seed=self.seeds)

    async def close(self) -> None:
        pass
