"""Many clients at once on `dynasor serve`, good ones and bad ones, and what they leave behind.

python -m benchmarks.endpoint_load [--clients 200] [--seconds 180] [--out FILE]

The real server, the embedded model on real vLLM, loopback. Of every ten clients six behave (plain,
reasoning and streamed queries with seeds), one leaves in the middle, one sends rubbish, one asks for
more than is allowed, one stalls. Checked: answers of those who behave are word for word those that the
same seed gave on the idle server; every other client gets what it must get, and 429 at most besides;
afterwards gangs, requests, KV cache and connections are back at the start, and the second half of the
time added little memory to the first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from benchmarks.endpoint_process import Served, serving
from dynasor.embedded_model import test_suite

QUESTIONS = 24
EXPECTED = {
    "good": ("right", "429"),
    "leaver": ("200", "429"),
    "rubbish": ("400", "429"),
    "greedy": ("400", "429"),
    "staller": ("408", "429"),
}
"""What each kind of client may see."""
GROWTH_MIB = 64
"""Memory that the second half may add; what the first half added counts as filling caches."""
RUBBISH = [
    b"{", b"\xff" * 100, b'{"model": 3}', b"[" * 5000, b'{"model":"embedded","messages":"x"}',
    b'{"model":"embedded","messages":[{"role":"user","content":"x"}],"magic":1}',
]  # fmt: skip
TOO_MUCH: list[dict[str, Any]] = [
    {"max_tokens": 10**8},
    {"n": 1000},
    {"messages": [{"role": "user", "content": "shells " * 5000}]},
    {"model": "embedded:self-consistency", "dynasor": {"budget": {"samples": 5000}}},
    {"dynasor": {"deadline_ms": 10**9}},
]


def bodies() -> list[dict[str, Any]]:
    """What well-behaved clients ask, each with a seed of its own."""
    rows = [json.loads(line) for line in test_suite().read_text().splitlines()]
    asked = random.Random(1).sample(rows, QUESTIONS)
    found = []
    for number, row in enumerate(asked):
        body: dict[str, Any] = {
            "model": "embedded",
            "messages": [{"role": "user", "content": row["question"]}],
            "seed": 1000 * number,
            "max_tokens": 300,
        }
        if number % 3 == 0:
            body |= {"model": "embedded:self-consistency", "dynasor": {"budget": {"samples": 8}}}
        if number % 3 == 1:
            body |= {"stream": True}
        found.append(body)
    return found


class Clients:
    """All clients of one server, and what they saw."""

    def __init__(self, served: Served, asked: list[dict[str, Any]]) -> None:
        self.served = served
        self.asked = asked
        self.right: dict[int, str] = {}
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.latency: list[float] = []
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        self.http = httpx.AsyncClient(base_url=served.root, timeout=300, limits=limits)
        self.openai = openai.AsyncOpenAI(
            base_url=served.url, api_key="none", max_retries=0, http_client=self.http
        )

    async def answer(self, number: int) -> str:
        body = dict(self.asked[number])
        extra = {"dynasor": body.pop("dynasor")} if "dynasor" in body else None
        made = await self.openai.chat.completions.create(**body, extra_body=extra)
        if not body.get("stream"):
            return made.choices[0].message.content or ""
        return "".join([chunk.choices[0].delta.content or "" async for chunk in made])

    async def learn(self) -> None:
        """The right answers, one after the other on the idle server."""
        for number in range(len(self.asked)):
            self.right[number] = await self.answer(number)

    async def good(self, rng: random.Random) -> None:
        number = rng.randrange(len(self.asked))
        begin = time.monotonic()
        try:
            text = await self.answer(number)
        except openai.APIStatusError as error:
            self.seen[f"good {error.status_code}"] += 1
            await asyncio.sleep(float(error.response.headers.get("retry-after", 1)))
            return
        except openai.APIConnectionError:
            raise
        except openai.APIError as error:  # inside a stream
            self.seen[f"good error in stream: {error.message}"] += 1
            return
        self.latency.append(time.monotonic() - begin)
        same = text == self.right[number]
        others = not same and text in self.right.values()
        self.seen["good right" if same else "good another's" if others else "good wrong"] += 1
        if not same:
            self.wrong.append(f"{self.right[number][:80]!r} != {text[:80]!r}")

    async def leaver(self, rng: random.Random) -> None:
        body = {**self.asked[rng.randrange(len(self.asked))], "stream": True}
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            self.seen[f"leaver {response.status_code}"] += 1
            async for _ in response.aiter_bytes():
                if rng.random() < 0.4:
                    return

    async def rubbish(self, rng: random.Random) -> None:
        headers = {"content-type": "application/json"}
        content = rng.choice(RUBBISH)
        response = await self.http.post("/v1/chat/completions", content=content, headers=headers)
        self.seen[f"rubbish {response.status_code}"] += 1

    async def greedy(self, rng: random.Random) -> None:
        body = {**self.asked[0], **rng.choice(TOO_MUCH)}
        response = await self.http.post("/v1/chat/completions", json=body)
        self.seen[f"greedy {response.status_code}"] += 1

    async def staller(self, rng: random.Random) -> None:
        port = int(self.served.root.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
        )
        line = await reader.readline()
        self.seen[f"staller {line.split()[1].decode() if line else 'closed'}"] += 1
        writer.close()

    async def play(self, number: int, until: float) -> None:
        """One client after the other in the same place, until the time is over."""
        rng = random.Random(number)
        kinds = [self.good] * 6 + [self.leaver, self.rubbish, self.greedy, self.staller]
        kind = kinds[number % len(kinds)]
        while time.monotonic() < until:
            try:
                await kind(rng)
            except (httpx.TransportError, openai.APIConnectionError, OSError) as error:
                self.seen[f"{kind.__name__} {type(error).__name__}"] += 1
            await asyncio.sleep(rng.random() * 0.2)


def left_behind(served: Served) -> dict[str, float]:
    """What must be as it was."""
    seen = served.metrics()
    return {
        "gangs": seen["dynasor_gangs_running"],
        "requests": seen["dynasor_requests_running"],
        "waiting": seen["dynasor_requests_waiting"],
        "kv_share": round(seen["dynasor_kv_cache_share"], 4),
        "connections": len(psutil.Process(served.process.pid).net_connections("tcp")),
        "threads": psutil.Process(served.process.pid).num_threads(),
        "memory_mib": round(served.memory() / 2**20),
    }


async def settle(served: Served) -> dict[str, float]:
    for _ in range(240):
        state = left_behind(served)
        if not state["gangs"] and not state["requests"]:
            break
        await asyncio.sleep(0.25)
    await asyncio.sleep(1.0)
    return left_behind(served)


async def run(served: Served, clients: int, seconds: float) -> dict[str, Any]:
    all_clients = Clients(served, bodies())
    await all_clients.learn()
    states = [await settle(served)]
    for _ in range(2):  # what the second half leaves behind shows whether it goes on growing
        until = time.monotonic() + seconds / 2
        await asyncio.gather(*(all_clients.play(number, until) for number in range(clients)))
        states.append(await settle(served))
    await all_clients.openai.close()
    states.append(await settle(served))
    latency = sorted(all_clients.latency)
    return {
        "clients": clients,
        "seconds": seconds,
        "seen": dict(sorted(all_clients.seen.items())),
        "wrong": all_clients.wrong[:5],
        "latency_p50": latency[len(latency) // 2] if latency else None,
        "latency_p99": latency[int(0.99 * len(latency))] if latency else None,
        "before": states[0],
        "half": states[1],
        "full": states[2],
        "after": states[3],
    }


def verdict(result: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    problems = []
    for what, count in result["seen"].items():
        kind, _, end = what.partition(" ")
        if end not in EXPECTED[kind]:
            problems.append(f"{what}: {count}")
    problems += [
        f"no {kind} client saw {ends[0]}"
        for kind, ends in EXPECTED.items()
        if not result["seen"].get(f"{kind} {ends[0]}")
    ]
    if result["wrong"]:
        problems.append(f"wrong answers: {result['wrong']}")
    before, half, full, after = (result[when] for when in ("before", "half", "full", "after"))
    for name in ("gangs", "requests", "waiting", "kv_share"):
        if after[name] != before[name]:
            problems.append(f"{name} left behind: {after[name]}")
    if after["connections"] > before["connections"]:
        problems.append(f"connections left behind: {after['connections']}")
    grown = full["memory_mib"] - half["memory_mib"]
    if grown > max(GROWTH_MIB, half["memory_mib"] - before["memory_mib"]):
        problems.append(f"memory grows: {grown:.0f} MiB in the second half")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    log = Path(tempfile.mkdtemp()) / "serve.log"
    environment = {"DYNASOR_SERVER__STALLED": "5"}
    with serving(log, environment=environment) as served:
        result = asyncio.run(run(served, options.clients, options.seconds))
    result["problems"] = verdict(result)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    raise SystemExit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
