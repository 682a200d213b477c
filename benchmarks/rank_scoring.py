"""How fast rankers score prompts: python benchmarks/rank_scoring.py DATA [--model NAME_OR_FOLDER]...

DATA is a folder of `dynasor rank build-data`; the first turns of its test split are scored in the
order of the file, one at a time and in batches of 64. Prints, for each ranker and batch size,
prompts a second with the interval of a bootstrap over batches, and the 50th and 99th percentile of
the milliseconds until a prompt has its score, which are those of its whole batch. Rankers take
turns, so that a busy machine slows all of them alike. --json FILE keeps the figures.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from dynasor.intervals import bootstrap
from dynasor.ranking.build_data import read_split
from dynasor.ranking.model_folder import load_ranker
from dynasor.ranking.ranker import Ranker

BATCHES = (1, 64)
WARM_UP = 3


def milliseconds(rankers: list[Ranker], prompts: list[str], size: int) -> np.ndarray:
    """(rankers, batches) wall-clock times of scoring a batch."""
    batches = [prompts[k : k + size] for k in range(0, len(prompts) - size + 1, size)]
    for ranker in rankers:
        for batch in batches[:WARM_UP]:
            ranker.score(batch)
    times = np.empty((len(rankers), len(batches)))
    for column, batch in enumerate(batches):
        for row, ranker in enumerate(rankers):
            began = time.perf_counter()
            ranker.score(batch)
            times[row, column] = 1e3 * (time.perf_counter() - began)
    return times


def figures(name: str, size: int, times: np.ndarray) -> dict[str, Any]:
    low, high = bootstrap(np.full(len(times), 1e3 * size), over=times)
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return {
        "ranker": name,
        "batch": size,
        "prompts_per_second": 1e3 * size / times.mean(),
        "prompts_per_second_interval": [low, high],
        "p50_ms": p50,
        "p99_ms": p99,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast rankers score prompts.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", help="default: cheap and encoder")
    parser.add_argument("--prompts", type=int, default=1024, help="at most")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    prompts = [e.prompt for e in read_split(arguments.data, "test") if e.turn == 0]
    prompts = prompts[: arguments.prompts]
    rankers = [load_ranker(name) for name in arguments.model or ("cheap", "encoder")]
    rows = [
        figures(ranker.name, size, times)
        for size in BATCHES
        for ranker, times in zip(rankers, milliseconds(rankers, prompts, size), strict=True)
    ]
    print(f"{len(prompts):,} prompts, {platform.processor() or platform.machine()}\n")
    print("| ranker | batch | prompts a second | p50, ms | p99, ms |\n|" + "---|" * 5)
    for row in rows:
        low, high = row["prompts_per_second_interval"]
        print(
            f"| {row['ranker']} | {row['batch']} | {row['prompts_per_second']:,.0f} "
            f"[{low:,.0f}, {high:,.0f}] | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
