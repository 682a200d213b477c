"""AgentWrite against asking once: words asked for against words delivered.

    python benchmarks/writing_lengths.py --model ./Qwen2.5-Coder-0.5B-Instruct --out runs/writing

Each instruction is asked for each length, once in a single request and once by AgentWrite, all at the
same time on one engine. What is finished is kept in --out; the same command goes on there. Prints a
table, and draws delivered against requested words. 95% bootstrap intervals over texts, differences
paired.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from algorithms.agentwrite import TOKENS_A_WORD, AgentWrite, Care
from algorithms.program import Generation, Request, Sampling
from certaindex.length import count_words, length_score
from certaindex.rules.never import Never
from dynasor.allocator import PerQuery
from dynasor.bench.plots import STYLE  # which chooses a backend without a screen
from dynasor.config import load_config
from dynasor.engines.base import Engine
from dynasor.engines.build import build_engine
from dynasor.intervals import bootstrap
from dynasor.runtime import Runtime

INSTRUCTIONS = (
    "Write a guide to growing tomatoes on a balcony.",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "Write an essay on how the bicycle changed everyday life.",
    "Write a report on the advantages and disadvantages of working from home.",
)
ONCE, AGENT = "asked once", "AgentWrite"
COLOURS = {ONCE: "#4c566a", AGENT: "#d1495b"}


def room(words: int) -> int:
    """The same tokens for a single request as for the part that is all of a text."""
    return round(TOKENS_A_WORD * words) + 64


async def ask_once(engine: Engine, name: str, instruction: str, words: int) -> tuple[str, int]:
    chat = ({"role": "user", "content": f"{instruction}\n\nWrite about {words} words."},)
    request = Request(
        name, name, chat, Sampling(temperature=0.5, max_tokens=room(words), seed=words)
    )
    async for event in engine.submit(request):
        if isinstance(event, Generation):
            return event.text, event.tokens
    raise AssertionError("a request ends in a generation")


async def write(engine: Engine, name: str, instruction: str, words: int) -> tuple[str, int]:
    sampling = Sampling(temperature=0.5, max_tokens=4096, seed=words)
    program = AgentWrite(name, instruction, words=words, sampling=sampling, care=Care())
    outcome = await Runtime(engine, PerQuery(Never(), 4)).solve(program)
    return outcome.answer.value or "", outcome.bill.output


async def run(options: argparse.Namespace, known: dict[tuple[Any, ...], Any], file: Path) -> None:
    """All texts that are not there yet."""
    place: dict[str, Any] = {"model": options.model}
    if options.base_url:
        place |= {"kind": "openai", "base_urls": (options.base_url,)}
    engine = build_engine(load_config(overrides={"engine": place}).engine)
    await engine.start()

    async def make(way: str, number: int, words: int) -> None:
        ask = ask_once if way == ONCE else write
        name = f"{way.replace(' ', '-')}-{number}-{words}"
        text, tokens = await ask(engine, name, INSTRUCTIONS[number], words)
        row = {"way": way, "instruction": number, "words": words, "tokens": tokens}
        row |= {"delivered": count_words(text), "text": text}
        known[way, number, words] = row
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(f"{way}, {words} words: {row['delivered']}", flush=True)

    try:
        await asyncio.gather(*(make(*key) for key in wanted(options) if key not in known))
    finally:
        await engine.close()


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    for words in options.words:
        for number in range(options.instructions):
            yield ONCE, number, words
            yield AGENT, number, words


def score(row: dict[str, Any]) -> float:
    return length_score(row["words"], row["delivered"])


def print_table(rows: dict[tuple[Any, ...], Any], options: argparse.Namespace) -> None:
    print("\n| words asked for | once: words | S_l | AgentWrite: words | S_l | more S_l | tokens |")
    print("|---|---|---|---|---|---|---|")
    for words in (*options.words, None):
        lengths = options.words if words is None else [words]
        pairs = [(w, n) for w in lengths for n in range(options.instructions)]
        once = [rows[ONCE, n, w] for w, n in pairs]
        agent = [rows[AGENT, n, w] for w, n in pairs]
        more = np.array([score(a) - score(o) for a, o in zip(agent, once, strict=True)])
        low, high = bootstrap(more)
        cost = sum(a["tokens"] for a in agent) / sum(o["tokens"] for o in once)
        delivered = [f"{np.median([row['delivered'] for row in way]):.0f}" for way in (once, agent)]
        scores = [f"{np.mean([score(row) for row in way]):.0f}" for way in (once, agent)]
        print(
            f"| {words or 'all'} | {delivered[0] if words else ''} | {scores[0]} "
            f"| {delivered[1] if words else ''} | {scores[1]} "
            f"| {more.mean():+.0f} [{low:+.0f}, {high:+.0f}] | {cost:.1f} times |"
        )


def plot(rows: dict[tuple[Any, ...], Any], path: Path) -> None:
    """Delivered against requested words: each text, the medians, and the diagonal."""
    asked = sorted({words for _, _, words in rows})
    ends = np.array([asked[0] / 1.4, asked[-1] * 1.4])
    least = ends[0] / 4  # what is shorter is shown there, by a triangle
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 5.4), constrained_layout=True)
        axes.plot(ends, ends, "--", color="grey", lw=1, label="as long as asked for")
        for way, shift in ((ONCE, 0.96), (AGENT, 1.04)):
            points = sorted((w, row["delivered"]) for (is_way, _, w), row in rows.items()
                            if is_way == way)  # fmt: skip
            wanted, delivered = np.array(points, dtype=float).T
            short, colour = delivered < least, COLOURS[way]
            for mark, these in (("o", ~short), ("v", short)):
                axes.scatter(
                    wanted[these] * shift, delivered[these].clip(least), marker=mark,
                    color=colour, s=26, alpha=0.55, linewidths=0,
                )  # fmt: skip
            places = sorted(set(wanted))
            medians = [max(least, float(np.median(delivered[wanted == w]))) for w in places]
            axes.plot(np.array(places) * shift, medians, color=colour, label=f"{way}, median")
        axes.set(
            xscale="log", yscale="log", xlabel="words asked for", ylabel="words delivered",
            title="Words delivered against words asked for",
        )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(asked))
            axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
            axis.set_minor_locator(NullLocator())
        axes.legend(loc="upper left", fontsize=9)
        figure.savefig(path)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--base-url", help="of a server that has the model")
    parser.add_argument("--words", type=int, nargs="+", default=[100, 200, 400, 800, 1600])
    parser.add_argument("--instructions", type=int, default=3, choices=[1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/writing"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "texts.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = {(row["way"], row["instruction"], row["words"]): row for row in map(json.loads, lines)}
    asyncio.run(run(options, rows, file))
    print_table(rows, options)
    plot(rows, options.out / "lengths.png")


if __name__ == "__main__":
    main()
