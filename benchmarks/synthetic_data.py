"""Synthetic data: n finished samples as soon as possible, of prompts whose samples differ in length.

python benchmarks/synthetic_data.py --trace TRACE [--data FILE --ranker NAME] [--live] [--share 0.1,0.3]

Nobody waits for a certain sample, so the short ones go first. All requests are there at the start, and
the time until the first n of them have finished is compared with that of first come, first served.
Simulated: by the queue of our scheduler and --slots places (`dynasor.ranking.queue_simulation`); by the
scores of rankers (--data), or by what siblings and prompts tell (--trace, --prompts; see
`rank_queue.py`), and by the oracle.
--live: the embedded model in vLLM under our scheduler's `sjf-rank`, first come first served being the
rank by arrival; the trace must be one of its own, with prompts. Half of its questions teach a ranker,
the other half is asked; `mean length` is the order by the recorded mean of each question, the most that
can be known of a prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from halves import tuning_half
from numpy.typing import NDArray
from probed_prompts import Prober
from rank_queue import data_scores, trace_scores

from algorithms.program import Generation, Request, Sampling
from dynasor.bench.recorded import collect_questions
from dynasor.config import SchedulerConfig
from dynasor.embedded_model import path as embedded_model
from dynasor.engines.vllm import VLLMEngine
from dynasor.intervals import bootstrap
from dynasor.ranking.backbone import DEFAULT_BACKBONE
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.queue_simulation import ORACLE, serve
from dynasor.scheduling.gang import Hints
from dynasor.traces import read_traces

Floats = NDArray[np.float64]


def simulated(
    name: str, scores: Mapping[str, Floats], tokens: Floats, options: argparse.Namespace
) -> None:
    """A line for each order and share: throughput until n against FCFS."""
    orders = {**scores, ORACLE: tokens}
    times: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for repeat in range(options.repeats):
        draw = np.random.default_rng((options.seed, repeat))
        chosen = draw.integers(len(tokens), size=options.requests)
        burst = np.zeros(options.requests)
        first_come = np.sort(serve(burst, tokens[chosen], slots=options.slots).latency)
        for order, ranks in orders.items():
            own = serve(burst, tokens[chosen], ranks[chosen], slots=options.slots).latency
            own.sort()
            for share in options.share:
                last = max(1, round(share * options.requests)) - 1
                times.setdefault((order, share), []).append((first_come[last], own[last]))
    for (order, share), pairs in times.items():
        fcfs, mine = np.array(pairs).T
        low, high = bootstrap(fcfs, mine)
        print(f"| {name}, simulated | {share:.0%} of {options.requests} | {order} | "
              f"{fcfs.mean() / mine.mean():.2f} ({low:.2f} to {high:.2f}) |", flush=True)  # fmt: skip


class Asked(NamedTuple):
    """A request: the smaller its rank, the sooner it is admitted."""

    name: str
    prompt: Any
    rank: float
    seed: int


async def time_until(engine: VLLMEngine, asked: Sequence[Asked], ends: list[int]) -> list[float]:
    """Seconds until so many requests have finished, `ends` rising; what is left then is cut."""
    finished: list[float] = []
    enough = asyncio.Event()

    async def ask(each: Asked) -> None:
        engine.hint(each.name, Hints(rank=each.rank))
        sampling = Sampling(max_tokens=1024, seed=each.seed)
        request = Request(f"{each.name}#0", each.name, each.prompt, sampling)
        async for event in engine.submit(request):
            if isinstance(event, Generation) and event.finish_reason in ("stop", "length"):
                finished.append(monotonic())
                if len(finished) == ends[-1]:
                    enough.set()

    begin = monotonic()
    tasks = [asyncio.create_task(ask(each)) for each in asked]
    served = asyncio.gather(*tasks)
    waiter = asyncio.create_task(enough.wait())
    await asyncio.wait([served, waiter], return_when=asyncio.FIRST_COMPLETED)
    if not enough.is_set():
        served.result()
        raise SystemExit(f"only {len(finished)} of {len(tasks)} requests finished")
    served.cancel()
    await asyncio.gather(*tasks, served, return_exceptions=True)
    return [finished[end - 1] - begin for end in ends]


async def live(path: Path, options: argparse.Namespace) -> None:
    """Several runs of each order in turn, of the same requests on one engine."""
    rows = {row.query: row for row in read_traces(path, skip_torn_end=True)}
    questions = collect_questions(read_traces(path, skip_torn_end=True))
    texts = {name: each.prompt or "" for name, each in questions.items()}
    lengths = {name: float(np.log(each.query.tokens).mean()) for name, each in questions.items()}
    half = tuning_half(questions)
    taught, rest = sorted(half), sorted(set(questions) - half)
    probe, _ = Prober(options).fit(
        [LengthExample(texts[name], float(np.exp(lengths[name])), name) for name in taught]
    )
    scores = dict(zip(rest, probe.score([texts[name] for name in rest]).tolist(), strict=True))
    requests = [(name, number) for name in rest for number in range(options.samples)]
    random.Random(options.seed).shuffle(requests)
    came = [float(place) for place in range(len(requests))]
    ranks = {
        "fcfs": came,
        "probe": [scores[name] for name, _ in requests],
        "mean length": [lengths[name] for name, _ in requests],
    }
    ends = [max(1, round(share * len(requests))) for share in options.share]
    times: dict[str, list[list[float]]] = {order: [] for order in ranks}
    engine = VLLMEngine(
        str(embedded_model()),
        max_running=options.slots,
        kv_gib=1,
        scheduler=SchedulerConfig(policy="sjf-rank", turns=0),
    )
    await engine.start()
    try:
        for repeat in range(options.repeats):
            for order, own in ranks.items():
                asked = [
                    Asked(f"{order}/{repeat}/{name}/{n}", _chat(rows[name].prompt), rank, n)
                    for (name, n), rank in zip(requests, own, strict=True)
                ]
                times[order].append(await time_until(engine, asked, ends))
    finally:
        await engine.close()
    for order in list(ranks)[1:]:
        for place, (share, end) in enumerate(zip(options.share, ends, strict=True)):
            fcfs = np.array([run[place] for run in times["fcfs"]])
            mine = np.array([run[place] for run in times[order]])
            low, high = bootstrap(fcfs, mine)
            print(f"| embedded model, live | {share:.0%}: {end} of {len(requests)} | {order} | "
                  f"{fcfs.mean() / mine.mean():.2f} ({low:.2f} to {high:.2f}) |")  # fmt: skip


def _chat(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else tuple(prompt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, action="append", default=[], help="recorded samples")
    parser.add_argument("--data", type=Path, help="prompts with lengths")
    parser.add_argument("--ranker", action="append", default=[], help="name or folder; repeatable")
    parser.add_argument("--prompts", action="append", default=[], metavar="TRACE=SUITE",
                        help="prompts by place in a suite, for queries named NAME/PLACE")  # fmt: skip
    parser.add_argument("--live", action="store_true", help="on vLLM, with the embedded model")
    parser.add_argument("--share", default="0.1,0.3", help="n, as shares of all requests")
    parser.add_argument("--requests", type=int, default=10_000, help="simulated ones")
    parser.add_argument("--samples", type=int, default=4, help="live: requests a question")
    parser.add_argument("--slots", type=int, default=64, help="requests at once")
    parser.add_argument("--repeats", type=int, default=5, help="runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="that reads prompts")
    parser.add_argument("--pooling", default="mean", help="mean, or last (for decoders)")
    options = parser.parse_args()
    prober = Prober(options)
    options.share = sorted(float(each) for each in options.share.split(","))
    if not all(0 < each <= 1 for each in options.share):
        parser.error("--share: give shares above 0 and up to 1, such as 0.1,0.3")
    if not options.trace and options.data is None:
        parser.error("give --trace or --data")
    suites = dict(each.split("=", 1) for each in options.prompts)
    print("| requests | until | order by | throughput, times FCFS |\n|---|---|---|---|")
    if options.data is not None:
        simulated(options.data.stem, *data_scores(options.data, options.ranker), options)
    for path in options.trace:
        if options.live:
            asyncio.run(live(path, options))
        else:
            told = trace_scores(path, options.seed, suites, prober)
            simulated(path.name.split(".jsonl")[0], *told, options)


if __name__ == "__main__":
    main()
