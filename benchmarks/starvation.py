"""A stream of short gangs at full load and one long gang, with and without the guard.

python benchmarks/starvation.py [--stream 400]

A real engine with 4 places under `gang-srpt`. Four times as many short gangs as there are places are
always there: each that ends is followed by a new one, until the stream is over. The long gang (8
requests) comes once the stream runs. Told: how many short gangs began between its coming of age and its
last admission, against the bound `turns * (A + m)`, where A counts the admissions of older gangs.
"""

import argparse
import asyncio
from time import monotonic

from algorithms.program import Request, Sampling
from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.vllm import VLLMEngine
from dynasor.scheduling.gang import Hints

PLACES, MEMBERS = 4, 8
SHORT = Sampling(temperature=2.0, max_tokens=8)
LONG = Sampling(temperature=2.0, max_tokens=200)
PROMPT = ({"role": "user", "content": "zq"},)


class Race:
    """The order in which gangs got their first token."""

    def __init__(self, engine: VLLMEngine, patience: float) -> None:
        self.engine = engine
        self.patience = patience
        self.began: list[tuple[float, str]] = []
        self.came = 0.0

    async def serve(self, gang: str, index: int, sampling: Sampling) -> None:
        first = True
        request = Request(f"{gang}#{index}", gang, PROMPT, sampling, index=index, report_every=1)
        async for _ in self.engine.submit(request):
            if first:
                self.began.append((monotonic(), gang))
                first = False

    async def stream(self, gangs: int) -> None:
        async def worker(number: int) -> None:
            for turn in range(gangs // (4 * PLACES)):
                gang = f"short{number}-{turn}"
                self.engine.hint(gang, Hints(tokens=8))
                await self.serve(gang, 0, SHORT)

        await asyncio.gather(*(worker(number) for number in range(4 * PLACES)))

    async def long(self) -> None:
        await asyncio.sleep(0.5)
        self.came = monotonic()
        self.engine.hint("long", Hints(tokens=200 * MEMBERS))
        await asyncio.gather(*(self.serve("long", index, LONG) for index in range(MEMBERS)))


async def run(turns: int, gangs: int, patience: float) -> None:
    engine = VLLMEngine(
        str(embedded_model()),
        max_running=PLACES,
        kv_gib=1,
        max_model_len=512,
        scheduler=SchedulerConfig(policy="gang-srpt", patience=patience, turns=turns),
    )
    await engine.start()
    try:
        race = Race(engine, patience)
        stream = asyncio.create_task(race.stream(gangs))
        await asyncio.gather(stream, race.long())
    finally:
        await engine.close()
    order = sorted(race.began)
    last_short = max(time for time, gang in order if gang != "long")
    starts = [time for time, gang in order if gang == "long"]
    during = [time for time in starts if time < last_short]
    print(f"turns = {turns}: {len(during)} of {MEMBERS} members of the long gang began while the "
          f"stream ran ({len(order) - len(starts)} short gangs)")  # fmt: skip
    if len(during) == MEMBERS:
        aged = race.came + patience
        between = sum(aged < time <= starts[-1] for time, gang in order if gang != "long")
        older = 4 * PLACES  # short gangs that were there before it, at most
        print(f"  admitted within {between + MEMBERS} admissions after its coming of age; bound "
              f"{turns} x ({older} + {MEMBERS}) = {turns * (older + MEMBERS)}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", type=int, default=800, help="short gangs")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds")
    arguments = parser.parse_args()
    for turns in (0, 4, 2):
        asyncio.run(run(turns, arguments.stream, arguments.patience))


if __name__ == "__main__":
    main()
