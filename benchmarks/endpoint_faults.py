"""The engine process killed again and again under load, on `dynasor serve`.

python -m benchmarks.endpoint_faults [--kills 5] [--clients 16] [--out FILE]

Told for each kill: seconds until the server is ready again, and how the queries ended that were in
flight: with an answer (`answered`) or with a clear error (503).
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

from benchmarks.endpoint_load import bodies
from benchmarks.endpoint_process import Served, serving


async def ask(client: openai.AsyncOpenAI, body: dict[str, Any], seen: Counter[str]) -> None:
    given = dict(body)
    extra = {"dynasor": given.pop("dynasor")} if "dynasor" in given else None
    try:
        made = await client.chat.completions.create(**given, extra_body=extra)
        if given.get("stream"):
            ended = [c async for chunk in made for c in chunk.choices if c.finish_reason]
            seen["answered" if ended else "stream without an end"] += 1
        else:
            seen["answered"] += 1
    except openai.APIStatusError as error:
        seen[f"error {error.status_code}"] += 1
        await asyncio.sleep(0.5)
    except openai.APIError as error:  # inside a stream
        seen[f"error in stream: {error.message}"] += 1
    except openai.APIConnectionError as error:
        seen[f"unclear: {type(error).__name__}"] += 1


async def run(served: Served, kills: int, clients: int) -> list[dict[str, Any]]:
    rounds = []
    asked = bodies()
    rng = random.Random(2)
    async with (
        openai.AsyncOpenAI(
            base_url=served.url, api_key="none", max_retries=0, timeout=600
        ) as client,
        httpx.AsyncClient(base_url=served.root, timeout=60) as http,
    ):
        for _ in range(kills):
            seen: Counter[str] = Counter()
            over = asyncio.Event()

            async def play(seen: Counter[str] = seen, over: asyncio.Event = over) -> None:
                while not over.is_set():
                    await ask(client, rng.choice(asked), seen)

            players = [asyncio.create_task(play()) for _ in range(clients)]
            await asyncio.sleep(3.0)
            before = dict(seen)
            (engine,) = served.engine_processes()
            engine.kill()
            begin = time.monotonic()
            while (await http.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
            noticed = time.monotonic() - begin
            while (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
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
    text = json.dumps({"rounds": rounds, "ends": dict(ends)}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    unclear = [end for end in ends if end.startswith("unclear") or "without an end" in end]
    raise SystemExit(1 if unclear else 0)


if __name__ == "__main__":
    main()
