"""What ordering costs an engine step: python benchmarks/queue_step.py [--step-ms 30] [--json].

10,000 requests of 1,000 gangs wait. One step asks of the queue what a busy engine does: choose anew as
time has passed, look at and admit 1 to 4 requests, end as many that ran, take hints for 2 gangs, and let
as many new requests come. The same, without hints, for vLLM's own two queues; these forget a request
that was admitted, so its end costs them nothing. Times are of the processor, so that other programs on
the machine do not count.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from time import monotonic, thread_time_ns
from types import SimpleNamespace
from typing import Any

import numpy as np

from dynasor.scheduling.gang import Hints
from dynasor.scheduling.policies import POLICIES
from dynasor.scheduling.queue import Aging, GangQueue

GANGS, MEMBERS = 1000, 10
MOST = 4  # admissions a step
WARM_UP = 200


class Ranked(SimpleNamespace):
    """As vLLM's requests are ordered: by priority, then by arrival."""

    __hash__ = object.__hash__

    def __lt__(self, other: Ranked) -> bool:
        return (self.priority, self.arrival_time) < (other.priority, other.arrival_time)


def request(gang: int, number: int) -> Ranked:
    return Ranked(gang=f"g{gang}", name=f"r{number}", priority=gang, arrival_time=float(number))


def hints(rng: random.Random) -> Hints:
    return Hints(tokens=rng.random() * 9000, rank=rng.random(), deadline=rng.random() * 900)


def ours(policy: str) -> Callable[[random.Random, int], int]:
    """Fill a gang queue; the result plays one step and gives its nanoseconds."""
    rng = random.Random(0)
    queue: GangQueue[Ranked] = GangQueue(POLICIES[policy](), monotonic, aging=Aging(0.0))
    for number in range(GANGS * MEMBERS):
        new = request(number % GANGS, number)
        queue.add(new, new.gang, new.name, hints(rng))
    running = [queue.take() for _ in range(128)]
    for number in range(128):
        new = request(number % GANGS, -number)
        queue.add(new, new.gang, f"more{number}", hints(rng))

    def step(rng: random.Random, number: int) -> int:
        k = 1 + number % MOST
        rng.shuffle(running)
        news = [(f"g{rng.randrange(GANGS)}", hints(rng)) for _ in range(2)]
        come = [request(rng.randrange(GANGS), 10**6 + number * MOST + each) for each in range(k)]
        told = [hints(rng) for _ in come]
        served = rng.randrange(50, 150)
        start = thread_time_ns()
        queue.reconsider()
        for _ in range(k):
            queue.end(running.pop(), served, finished=True)
        for gang, hint in news:
            queue.hint(gang, hint)
        for new, hint in zip(come, told, strict=True):
            queue.add(new, new.gang, new.name, hint)
        for _ in range(k):
            queue.peek()
            running.append(queue.take())
        return thread_time_ns() - start

    return step


def vllms(queue: Any) -> Callable[[random.Random, int], int]:
    """The same of one of vLLM's queues."""
    for number in range(GANGS * MEMBERS):
        queue.add_request(request(number % GANGS, number))

    def step(rng: random.Random, number: int) -> int:
        k = 1 + number % MOST
        come = [request(rng.randrange(GANGS), 10**6 + number * MOST + each) for each in range(k)]
        start = thread_time_ns()
        for new in come:
            queue.add_request(new)
        for _ in range(k):
            queue.peek_request()
            queue.pop_request()
        return thread_time_ns() - start

    return step


def measure(name: str, step: Callable[[random.Random, int], int], steps: int) -> dict[str, Any]:
    rng = random.Random(1)
    times = np.array([step(rng, number) for number in range(WARM_UP + steps)][WARM_UP:]) / 1e3
    median, late = np.percentile(times, [50, 99])
    return {"queue": name, "median_us": round(float(median), 1), "p99_us": round(float(late), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="steps that are timed")
    parser.add_argument("--step-ms", type=float, help="a decode step; 30 is assumed if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue, PriorityRequestQueue

    rows = [
        measure("vLLM FCFSRequestQueue", vllms(FCFSRequestQueue()), options.steps),
        measure("vLLM PriorityRequestQueue", vllms(PriorityRequestQueue()), options.steps),
        *(measure(f"GangQueue {name}", ours(name), options.steps) for name in POLICIES),
    ]
    step_ms = options.step_ms or 30.0
    for row in rows:
        row["share_of_step_percent"] = round(row["median_us"] / step_ms / 10, 3)
    assumed = options.step_ms is None
    if options.json:
        print(json.dumps({"queues": rows, "step_ms": step_ms, "step_ms_is_assumed": assumed}))
        return
    for row in rows:
        print(
            f"{row['queue']:27} median {row['median_us']:6.1f} us   p99 {row['p99_us']:6.1f} us   "
            f"{row['share_of_step_percent']:.3f}% of a step"
        )
    origin = "an assumption, not measured here" if assumed else "as given by --step-ms"
    print(f"A decode step is taken to last {step_ms:g} ms: {origin}.")


if __name__ == "__main__":
    main()
