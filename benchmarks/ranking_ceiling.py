"""How well lengths can be ordered at all: python benchmarks/ranking_ceiling.py FILE... [--max-tokens N]

A file is a trace with several samples a question, or a data file of `dynasor rank build-data` in which
prompts occur several times. Prints Markdown: Kendall's tau if an answer is predicted by another answer
to the same prompt, and by the median of all the others.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from dynasor.ranking.ceiling import ceiling
from dynasor.ranking.dataset import stream_examples
from dynasor.ranking.json_stream import stream_objects
from dynasor.traces import read_traces

Answers = dict[str, list[tuple[float, bool]]]


def answers_of(path: Path, max_tokens: int | None) -> Answers:
    found: Answers = defaultdict(list)
    first = next((row for row, _ in stream_objects(path)), {})
    if "query" in first:
        for sample in read_traces(path, skip_torn_end=True):
            if sample.finish_reason in ("aborted", "error") or not sample.tokens:
                continue
            limit_hit = max_tokens is not None and sample.tokens >= max_tokens
            cut = sample.finish_reason == "length" or limit_hit
            found[sample.query].append((sample.tokens, cut))
    else:
        for example in stream_examples(path):
            found[example.prompt].append((example.tokens, example.cut > 0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--max-tokens", type=int, help="limit of the runs, if not recorded")
    arguments = parser.parse_args()
    print("| answers | prompts | answers | tau by one other | tau by the median of the others |")
    print("|---|---|---|---|---|")
    for path in arguments.files:
        rows = answers_of(path, arguments.max_tokens).values()
        found = ceiling(
            [np.array([tokens for tokens, _ in row], float) for row in rows],
            [np.array([cut for _, cut in row], bool) for row in rows],
        )
        print(
            f"| {path.name} | {found.prompts:,} | {found.answers:,} "
            f"| {found.twin:.3f} [{found.twin_interval[0]:.3f}, {found.twin_interval[1]:.3f}] "
            f"| {found.median:.3f} [{found.median_interval[0]:.3f}, {found.median_interval[1]:.3f}] |"
        )


if __name__ == "__main__":
    main()
