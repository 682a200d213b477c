"""A load step to twice the planned rate on the real `dynasor serve`, with the online control on and off.

    dynasor tune ... --out tuned.toml        # says what is promised, and what keeps it
    python -m benchmarks.load_step --config tuned.toml [--rate QPS] [--seconds 60] [--out FILE]

Queries of the embedded suite arrive at random times (Poisson): at the planned rate, then at `--factor`
times that, then at the planned rate again. Both sides get the same queries, seeds and arrival times, in
turns. Attainment: queries answered within the hardest latency target of the class, over all that came;
a refused one is not answered in time. Loss: each query is asked again, with the same seed and wave and
without a stop rule, when nothing else runs, so that it has the same samples; the share whose answer
differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.endpoint_process import Served, serving
from dynasor.config import load_config
from dynasor.embedded_model import test_suite
from dynasor.intervals import Interval, bootstrap
from dynasor.slo.calibration_set import CalibrationSet

PARTS = ("before", "during", "after")
FULL_AT_ONCE = 4
"""Queries at once that are asked again for the full budget's answer."""


@dataclass
class Asked:
    """One query.

    Attributes:
        part: of the load step.
        due: seconds from the beginning at which it is asked.
        question: its text.
        seed: of its samples.
        status: of HTTP.
        seconds: from `due` to the whole answer.
        answer: that was chosen.
        samples: finished ones.
        retry_after: seconds, where it was refused.
    """

    part: str
    due: float
    question: str
    seed: int
    status: int = 0
    seconds: float = 0.0
    answer: str | None = None
    samples: int = 0
    retry_after: float | None = None


def arrivals(rate: float, factor: float, seconds: float, seed: int) -> list[Asked]:
    """The queries of one turn, the same for both sides."""
    questions = [json.loads(line)["question"] for line in test_suite().read_text().splitlines()]
    rng, asked = random.Random(seed), []
    for number, part in enumerate(PARTS):
        pace, now = rate * (factor if part == "during" else 1.0), 0.0
        while (now := now + rng.expovariate(pace)) < seconds:
            due = number * seconds + now
            asked.append(Asked(part, due, rng.choice(questions), rng.randrange(1 << 30)))
    return asked


def body(asked: Asked, model: str, effort: str | None, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": asked.question}]
    extra = {"dynasor": options} if options else {}
    effort_of = {"reasoning_effort": effort} if effort else {}
    return {"model": model, "messages": messages, "seed": asked.seed, **effort_of, **extra}


class Client:
    """Asks one server."""

    def __init__(self, served: Served, effort: str | None, samples: int, wave: int) -> None:
        self.http = httpx.AsyncClient(base_url=served.root, timeout=900, limits=_NO_LIMITS)
        self.effort = effort
        self.samples = samples
        self.wave = wave
        self.levels: list[dict[str, Any]] = []

    async def ask(self, asked: Asked, begin: float) -> None:
        """At its time."""
        await asyncio.sleep(max(0.0, begin + asked.due - time.monotonic()))
        response = await self.http.post(
            "/v1/chat/completions", json=body(asked, "embedded:self-consistency", self.effort)
        )
        asked.status = response.status_code
        asked.seconds = time.monotonic() - begin - asked.due
        if response.status_code == 200:
            told = response.json()["dynasor"]
            asked.answer, asked.samples = told["answer"], told["samples"]
        elif response.status_code == 429:
            asked.retry_after = float(response.headers["retry-after"])

    async def watch(self, begin: float) -> None:
        """How the class does, once a second."""
        while True:
            status = (await self.http.get("/slo")).json()
            self.levels.append({"at": round(time.monotonic() - begin, 1), **status})
            await asyncio.sleep(1.0)

    async def whole(self, queries: list[Asked]) -> dict[tuple[str, int], str | None]:
        """The full budget's answer to each."""
        free = asyncio.Semaphore(FULL_AT_ONCE)
        budget = {"samples": self.samples}

        async def one(asked: Asked) -> tuple[tuple[str, int], str | None]:
            options = {"stop": {"rule": "never"}, "budget": budget, "wave": self.wave}
            asking = body(asked, "embedded:self-consistency", None, **options)
            async with free:
                response = await self.http.post("/v1/chat/completions", json=asking)
            response.raise_for_status()
            return (asked.question, asked.seed), response.json()["dynasor"]["answer"]

        return dict(await asyncio.gather(*(one(asked) for asked in queries)))


_NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)


async def turn(
    served: Served, queries: list[Asked], options: argparse.Namespace, *, again: bool
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], str | None]]:
    """One load step, and the full budget's answers if this turn is to fetch them."""
    client = Client(served, options.effort, options.full, options.wave)
    warm = [Asked("warm", 0.0, queries[0].question, seed) for seed in range(3)]
    await asyncio.gather(*(client.ask(each, time.monotonic()) for each in warm))
    begin = time.monotonic()
    watching = asyncio.create_task(client.watch(begin))
    await asyncio.gather(*(client.ask(asked, begin) for asked in queries))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    picked = [asked for asked in queries if asked.status == 200] if again else []
    full = await client.whole(random.Random(0).sample(picked, min(options.checked, len(picked))))
    await client.http.aclose()
    return client.levels, full


@dataclass(frozen=True)
class Part:
    """Figures of one side in one part; intervals are bootstrap over queries, 95%."""

    came: int
    refused: int
    attainment: tuple[float, Interval]
    of_answered: float
    p90: float
    samples: float
    checked: int
    loss: tuple[float, Interval] | None


def figures(
    queries: list[Asked], full: dict[tuple[str, int], str | None], target: float
) -> dict[str, Part]:
    """What came of the queries of one side, part by part."""
    found = {}
    for part in PARTS:
        came = [asked for asked in queries if asked.part == part]
        answered = [asked for asked in came if asked.status == 200]
        in_time = np.array([a.status == 200 and a.seconds <= target for a in came], dtype=float)
        keys = [(asked, (asked.question, asked.seed)) for asked in answered]
        lost = np.array([full[key] != a.answer for a, key in keys if key in full], dtype=float)
        found[part] = Part(
            came=len(came),
            refused=sum(asked.status == 429 for asked in came),
            attainment=(float(in_time.mean()), bootstrap(in_time)) if len(came) else (1.0, (0, 1)),
            of_answered=float(np.mean([a.seconds <= target for a in answered] or [1.0])),
            p90=float(np.quantile([asked.seconds for asked in answered] or [0.0], 0.9)),
            samples=float(np.mean([asked.samples for asked in answered] or [0.0])),
            checked=len(lost),
            loss=(float(lost.mean()), bootstrap(lost)) if len(lost) else None,
        )
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    config = load_config(options.config)
    rate = options.rate or config.slo.rate
    promised = next(iter(config.slo.classes.values()), None)
    if rate is None or promised is None or not promised.targets:
        raise SystemExit("give a rate, and a class with a latency target in [slo]")
    options.full = config.algorithm.samples
    options.wave = promised.settings.wave or config.allocator.wave  # as it was certified
    if config.slo.calibration is not None:  # it may be that fewer were chosen
        known = CalibrationSet.load(Path(config.slo.calibration)).classes.values()
        options.full = max(each.full_samples for each in known)
    target, sides = promised.targets[-1][1], ("on", "off")
    asked: dict[str, list[Asked]] = {side: [] for side in sides}
    full: dict[tuple[str, int], str | None] = {}
    levels: dict[str, Any] = {side: [] for side in sides}
    for number in range(options.turns):
        for side in sides if number % 2 == 0 else sides[::-1]:
            queries = arrivals(rate, options.factor, options.seconds, options.seed + number)
            folder = Path(tempfile.mkdtemp())
            evidence = str(folder / "evidence.json")  # no side knows what another has learned
            control = str(side == "on").lower()
            changed = {
                "DYNASOR_SLO__WATCH__CONTROL": control,
                "DYNASOR_SLO__WATCH__FILE": evidence,
            }
            settings = ("--config", str(options.config))
            with serving(folder / "serve.log", *settings, environment=changed) as served:
                # The full budget's answer is the same on both sides, and "off" refuses nobody.
                seen, answers = asyncio.run(turn(served, queries, options, again=side == "off"))
            asked[side] += queries
            levels[side].append(seen)
            full |= answers
    parts = {side: figures(asked[side], full, target) for side in sides}
    return {
        "rate": rate,
        "factor": options.factor,
        "target": target,
        "epsilon": promised.epsilon,
        "turns": options.turns,
        "parts": {side: {part: asdict(f) for part, f in parts[side].items()} for side in sides},
        "levels": levels,
        "queries": {side: [asdict(each) for each in asked[side]] for side in sides},
    }


def table(result: dict[str, Any]) -> str:
    """The figures in Markdown."""
    head = "| control | part | came | refused | in time, of all that came | of those answered | p90, s |"
    lines = [f"{head} samples | answers that differ |", "|---|---|---|---|---|---|---|---|---|"]
    for side, parts in result["parts"].items():
        for name, part in parts.items():
            share, (low, high) = part["attainment"]
            lost = "-"
            if part["loss"]:
                mean, (least, most) = part["loss"]
                lost = f"{mean:.1%} [{least:.1%}, {most:.1%}] of {part['checked']}"
            lines.append(
                f"| {side} | {name} | {part['came']} | {part['refused']} | "
                f"{share:.1%} [{low:.1%}, {high:.1%}] | {part['of_answered']:.1%} | "
                f"{part['p90']:.2f} | {part['samples']:.2f} | {lost} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="with [slo]; see dynasor tune")
    parser.add_argument("--rate", type=float, help="planned, queries a second; slo.rate if not set")
    parser.add_argument("--factor", type=float, default=2.0, help="of the step")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--effort", help="reasoning_effort of the queries")
    parser.add_argument("--checked", type=int, default=300, help="queries asked again, a turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(options)
    print(table(result))
    if options.out:
        options.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
