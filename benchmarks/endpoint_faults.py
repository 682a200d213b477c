"""The engine process killed again and again under load, on `dynasor serve`.

python -m benchmarks.endpoint_faults [--kills 5] [--clients 16] [--out FILE]

Told for each kill: seconds until the server has noticed and until it is ready again, and how the queries
ended that were asked meanwhile: with the answer that their seed gives on the idle server (`right`), with
a clear error (503, as a status or inside a stream), or otherwise, which is a failure.
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

from benchmarks.endpoint_load import Clients, bodies
from benchmarks.endpoint_process import Served, serving

LONGEST = 300.0
"""Seconds that the engine has to come back."""
CLEAR = ("right", "error 503", "error in stream: engine_lost")


async def ask(clients: Clients, number: int, seen: Counter[str]) -> None:
    """One query, and how it ended."""
    try:
        text = await clients.answer(number)
        seen["right" if text == clients.right[number] else "wrong"] += 1
    except openai.APIStatusError as error:
        seen[f"error {error.status_code}"] += 1
        await asyncio.sleep(0.5)
    except (openai.APIConnectionError, httpx.TransportError) as error:
        seen[f"unclear: {type(error).__name__}"] += 1
        await asyncio.sleep(0.5)
    except openai.APIError as error:  # inside a stream
        seen[f"error in stream: {error.code}"] += 1


async def until(http: httpx.AsyncClient, ready: bool) -> None:
    """Wait until the server says that it is ready, or not."""
    async with asyncio.timeout(LONGEST):
        while ((await http.get("/readyz")).status_code == 200) != ready:
            await asyncio.sleep(0.01)


async def run(served: Served, kills: int, count: int) -> list[dict[str, Any]]:
    """Each kill, and what became of the queries around it."""
    rounds = []
    clients = Clients(served, bodies())
    await clients.learn()
    rng = random.Random(2)
    async with httpx.AsyncClient(base_url=served.root, timeout=60) as http:
        for _ in range(kills):
            seen: Counter[str] = Counter()
            over = asyncio.Event()

            async def play(seen: Counter[str] = seen, over: asyncio.Event = over) -> None:
                while not over.is_set():
                    await ask(clients, rng.randrange(len(clients.asked)), seen)

            players = [asyncio.create_task(play()) for _ in range(count)]
            await asyncio.sleep(3.0)
            before = dict(seen)
            (engine,) = served.engine_processes()
            engine.kill()
            begin = time.monotonic()
            await until(http, ready=False)
            noticed = time.monotonic() - begin
            await until(http, ready=True)
            back = time.monotonic() - begin
            await asyncio.sleep(2.0)
            over.set()
            await asyncio.gather(*players)
            rounds.append(
                {
                    "noticed_seconds": round(noticed, 3),
                    "back_seconds": round(back, 2),
                    "before_the_kill": before,
                    "in_all": dict(seen),
                }
            )
    await clients.openai.close()
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    log = Path(tempfile.mkdtemp()) / "serve.log"
    with serving(log) as served:
        rounds = asyncio.run(run(served, options.kills, options.clients))
    ends: Counter[str] = Counter()
    for one in rounds:
        ends.update(one["in_all"])
    problems = [f"{end}: {count}" for end, count in ends.items() if end not in CLEAR]
    result = {"rounds": rounds, "ends": dict(ends), "problems": problems}
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    raise SystemExit(1 if problems or not ends["right"] else 0)


if __name__ == "__main__":
    main()
