"""What ranks and refined forecasts cost: python benchmarks/rank_overhead.py --data FILE --ranker NAME

Scoring: the prompts come at --rate to the scorer of the runtime, which ranks them on its thread. Told:
how long a query waited for its rank, how many went unranked, and the ranker's seconds as a share of the
seconds that the answers take to generate at --pace tokens a second on --slots places (all of them busy).
Refining: one update of a forecast, processor time, against a decode step of --step-ms; and what a query
teaches at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from dataclasses import asdict
from math import log
from pathlib import Path
from time import perf_counter, thread_time_ns

import numpy as np

from certaindex.stopping import parse_rule
from certaindex.votes import Votes
from dynasor.ranking.dataset import read_examples
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.length_prior import LengthPrior
from dynasor.ranking.model_folder import load_ranker
from dynasor.ranking.prompt_vector import prompt_vector
from dynasor.ranking.ranked import Ranked
from dynasor.ranking.scorer import LengthScorer
from dynasor.scheduling.forecast import Forecast

QUERIES = 600
RULE = parse_rule("default")


async def score(scorer: LengthScorer, prompts: list[str], rate: float) -> list[float]:
    """Milliseconds that each query waited for its rank, with random arrivals."""
    draw, waited = random.Random(0), []

    async def ask(prompt: str) -> None:
        begin = perf_counter()
        await scorer.rank(prompt)
        waited.append(1e3 * (perf_counter() - begin))

    tasks = []
    for prompt in prompts:
        tasks.append(asyncio.create_task(ask(prompt)))
        await asyncio.sleep(draw.expovariate(rate))
    await asyncio.gather(*tasks)
    return waited


def scoring(options: argparse.Namespace) -> None:
    examples: list[LengthExample] = read_examples(options.data)[: options.prompts]
    prompts = [each.prompt for each in examples]
    ranker = load_ranker(options.ranker)
    # Any calibration costs the same, so that rankers without one can be timed.
    calibration = LengthCalibration.fit(ranker.score(prompts), examples)
    scorer = LengthScorer(ranker, calibration, deadline=options.deadline)
    try:
        waited = asyncio.run(score(scorer, prompts, options.rate))
    finally:
        scorer.close()
    p50, p99 = np.percentile(waited, [50, 99])
    generation = sum(each.tokens for each in examples) / options.pace / options.slots
    print(
        f"{ranker.name}: {len(prompts)} prompts at {options.rate:g}/s: waited p50 {p50:.2f} ms, p99 "
        f"{p99:.2f} ms, longest {max(waited):.1f}, deadline {1e3 * options.deadline:g} ms"
    )
    print(f"  {asdict(scorer.counters)}")
    print(f"  {1e3 * scorer.counters.seconds / len(prompts):.3f} ms a prompt, "
          f"{100 * scorer.counters.seconds / generation:.3f}% of the generation's "
          f"{generation:.0f} s")  # fmt: skip


def refining(step_ms: float) -> None:
    """Queries of a few samples that agree; those like them have been played before."""
    prompts = [prompt_vector(f"What is {n} times {n + 7}?") for n in range(QUERIES)]
    for running in (0, 1, 4, 16):
        forecast = Forecast(RULE, limit=10_000)
        updates: list[float] = []
        ends: list[float] = []
        for number, prompt in enumerate(prompts):
            query = forecast.query(Ranked(0.0, LengthPrior(log(500)), prompt))
            votes = Votes(max_samples=32)
            while not votes.n or RULE.decide(votes).stop is None:
                tokens = 600 + number % 7
                votes.add(0, tokens)
                start = thread_time_ns()
                query.sample_ended(tokens)
                query.remaining(votes, [100 + number] * running)
                updates.append((thread_time_ns() - start) / 1e3)
            start = thread_time_ns()
            query.ended(votes)
            ends.append((thread_time_ns() - start) / 1e3)
        median, late = np.percentile(updates, [50, 99])
        print(f"refining, {running} siblings run: median {median:.0f} us, p99 {late:.0f} us, "
              f"{median / step_ms / 10:.2f}% of a step of {step_ms:g} ms; what a query teaches at its "
              f"end: mean {np.mean(ends):.0f} us, longest {max(ends):.0f} us")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="prompts with lengths; none: refining only")
    parser.add_argument("--ranker", default="cheap", help="name or folder")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="queries a second")
    parser.add_argument("--deadline", type=float, default=0.05, help="seconds")
    parser.add_argument("--pace", type=float, default=50.0, help="tokens a second of a request")
    parser.add_argument("--slots", type=int, default=64, help="requests at once")
    parser.add_argument("--step-ms", type=float, default=30.0, help="a decode step")
    options = parser.parse_args()
    if options.data is not None:
        scoring(options)
    refining(options.step_ms)


if __name__ == "__main__":
    main()
