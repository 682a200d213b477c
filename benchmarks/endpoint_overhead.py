"""Plain requests: `dynasor serve` beside vLLM's own server, same model, same flags, in one run.

python -m benchmarks.endpoint_overhead [--rounds 8] [--requests 64] [--load 0.5] [--out FILE]

Their server has vLLM's own scheduler; ours has its gangs, as users get it. Both servers are up all the
time and are asked in turns, so that a slower minute of the machine hits both. A round asks each server
for the same prompts: once one request after the other at a rate that is `--load` of what their server
does at most (time to first token of a stream), once all at once (output tokens a second). Before the
first round both are warmed up and that rate is found. Told: median ratios over rounds (ours to theirs)
with 95% bootstrap intervals, and the output tokens of both, which only ties in rounding set apart. Where
the time goes is told by requests that come one after the other, when nothing waits for anything: the
head of the answer (read, checked, planned), the first token after it, and each token after that. For an
idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from benchmarks.endpoint_process import serving
from dynasor.embedded_model import test_suite
from tests.vllm_server import serve as vllm_serve

OUTPUT = 64
"""Tokens of each answer; both servers stop there or at the model's own end."""
ALONE = 8
"""Requests of a round that come one after the other."""


def prompts(count: int) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in test_suite().read_text().splitlines()][:count]
    return [
        {
            "model": "embedded",
            "messages": [{"role": "user", "content": row["question"]}],
            "temperature": 0,
            "max_tokens": OUTPUT,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for row in rows
    ]


class Answered(NamedTuple):
    """One stream: seconds from asking to its head, first text and end; output tokens."""

    head: float
    first: float
    end: float
    tokens: int


async def ask(http: httpx.AsyncClient, root: str, body: dict[str, Any]) -> Answered:
    begin, first, tokens = time.perf_counter(), 0.0, 0
    async with http.stream("POST", f"{root}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        head = time.perf_counter() - begin
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if not first and chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - begin
            if "error" in chunk:
                raise RuntimeError(f"{root}: {chunk['error']}")
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    if not first or not tokens:
        raise RuntimeError(f"{root}: a stream without text or usage")
    return Answered(head, first, time.perf_counter() - begin, tokens)


async def at_a_rate(root: str, asked: list[dict[str, Any]], rate: float) -> float:
    """Median seconds to the first token."""
    async with httpx.AsyncClient(timeout=300) as http:
        tasks = []
        for body in asked:
            tasks.append(asyncio.create_task(ask(http, root, body)))
            await asyncio.sleep(1 / rate)
        return float(np.median([(await task).first for task in tasks]))


async def alone(root: str, asked: list[dict[str, Any]]) -> list[Answered]:
    """One after the other."""
    async with httpx.AsyncClient(timeout=300) as http:
        return [await ask(http, root, body) for body in asked]


def parts(answered: list[Answered]) -> dict[str, float]:
    """Where the time of requests goes that are alone: medians, seconds."""
    return {
        "head": float(np.median([a.head for a in answered])),
        "first token after it": float(np.median([a.first - a.head for a in answered])),
        "each token after that": float(
            np.median([(a.end - a.first) / (a.tokens - 1) for a in answered if a.tokens > 1])
        ),
    }


async def all_at_once(root: str, asked: list[dict[str, Any]]) -> tuple[float, int]:
    """Output tokens a second, and output tokens."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as http:
        begin = time.perf_counter()
        ends = await asyncio.gather(*(ask(http, root, body) for body in asked))
        tokens = sum(end.tokens for end in ends)
        return tokens / (time.perf_counter() - begin), tokens


async def compare(ours: str, theirs: str, options: argparse.Namespace) -> dict[str, Any]:
    asked = prompts(options.requests)
    rows: dict[str, list[float]] = {"first_token": [], "throughput": []}
    plain: dict[str, list[float]] = {f"{name} {what}": [] for name in ("ours", "theirs")
                                     for what in ("first token, s", "tokens a second")}  # fmt: skip
    tokens: dict[str, int] = {}
    singly: dict[str, list[Answered]] = {"ours": [], "theirs": []}
    await all_at_once(ours, asked)
    await all_at_once(theirs, asked)
    most, spent = await all_at_once(theirs, asked)  # warm by now
    rate = options.load * most / (spent / len(asked))
    for number in range(options.rounds):
        order = [("ours", ours), ("theirs", theirs)]
        if number % 2:
            order.reverse()
        first = {name: await at_a_rate(root, asked, rate) for name, root in order}
        speed = {}
        for name, root in order:
            singly[name] += await alone(root, asked[:ALONE])
            speed[name], tokens[name] = await all_at_once(root, asked)
        rows["first_token"].append(first["ours"] / first["theirs"])
        rows["throughput"].append(speed["ours"] / speed["theirs"])
        for name, _ in order:
            plain[f"{name} first token, s"].append(first[name])
            plain[f"{name} tokens a second"].append(speed[name])
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "rounds": options.rounds,
        "requests": options.requests,
        "requests_a_second": round(rate, 2),
        "output_tokens": tokens,
    }
    for name, ratios in rows.items():
        draws = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
        found[name] = {
            "ratio": float(np.median(ratios)),
            "interval": [float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))],
        }
    found["medians"] = {name: float(np.median(values)) for name, values in plain.items()}
    found["alone, s"] = {name: parts(answered) for name, answered in singly.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--load", type=float, default=0.5, help="share of their throughput")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    # The flags of vLLM's server are those of tests/vllm_server.py; ours gets the same batch.
    environment = {"DYNASOR_ENGINE__MAX_RUNNING": "8", "DYNASOR_ENGINE__TUNE_CPU": "false"}
    threads = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "KMP_BLOCKTIME": "0",
    }
    with (
        vllm_serve(folder / "vllm.log", gangs=False) as theirs,
        serving(folder / "ours.log", environment={**environment, **threads}) as ours,
    ):
        result = asyncio.run(compare(ours.root, theirs.root, options))
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
