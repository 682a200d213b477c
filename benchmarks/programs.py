"""Every reasoning program with and without Certaindex on the embedded model, live on vLLM.

    python benchmarks/programs.py --limit 100 --out runs/programs

All systems run on one engine, one after the other, each in a folder that is gone on with when the
same command is given again; what is finished is only read. Prints one JSON object, and writes the
table of `docs/results/programs.md` into --out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from certaindex.equivalence import AnswerEquivalence
from dynasor.bench.offline import folder_of, run_system, systems_of
from dynasor.bench.summary import summarise
from dynasor.commands.display import QueryProgress, print_summaries
from dynasor.config import Config, load_config
from dynasor.engines.base import Engine
from dynasor.engines.build import build_engine
from dynasor.programs import algorithm_of, rule_of
from dynasor.rewards.base import RewardModel
from dynasor.rewards.build import build_reward
from dynasor.rewards.engine import RewardedEngine
from dynasor.suites import Suite, load_suite

SYSTEMS: dict[str, dict[str, Any]] = {
    "self-consistency": {},
    "dynasor-cot": {"cot": {"effort": "mid"}},
    "dynasor-cot-mild": {"cot": {"effort": "mild"}},
    "short-m-of-k": {},
    "deepconf": {"deepconf": {"keep": 0.9}},
    "deepconf-online": {"deepconf": {"keep": 0.9, "warm_up": 4}},
    "best-of-n": {},
    "beam-search": {"search": {"children": 4}},
    "dvts": {"search": {"children": 4}},
    "rebase": {},
    "mcts": {"search": {"children": 3}},
}
"""Name in the table -> settings of the algorithm; the name before a further dash is the program."""


def settings_of(name: str, samples: int) -> Config:
    """The configuration of one row."""
    program = name.removesuffix("-online").removesuffix("-mild")
    algorithm = {"name": program, "samples": samples, "seed": 1, "max_tokens": 480}
    algorithm |= SYSTEMS[name]
    if "children" in algorithm.get("search", {}):
        algorithm["search"] = {"children": min(algorithm["search"]["children"], samples)}
    return load_config(overrides={"algorithm": algorithm}, environment={})


async def run_one(
    name: str,
    config: Config,
    suite: Suite,
    engine: Engine,
    options: argparse.Namespace,
    console: Console,
) -> list[dict[str, Any]]:
    """Both systems of one program, or the full budget alone."""
    rows, summaries, out = [], [], options.out
    rules = [rule_of(config)] if options.certaindex else []
    for system in systems_of(config, rules, baseline=True):
        model = engine.capacity().model
        with folder_of(out / name, config, suite, system, model, fresh=False) as folder:
            done = len(folder.outcomes)
            with (
                QueryProgress(
                    console, f"{name}: {system.name}", len(suite.queries), done
                ) as display,
                AnswerEquivalence() as equivalence,
            ):
                rows.append(
                    await run_system(config, suite, system, engine, folder, equivalence, display)
                )
        first = rows[0] if len(rows) > 1 else None
        summaries.append(summarise(system.name, rows[-1], first, None))
    print_summaries(f"{suite.name}, {name}", summaries, console)
    return [{"program": name, **asdict(summary)} for summary in summaries]


async def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All programs that were asked for."""
    console = Console(stderr=True)
    suite = load_suite(options.suite, limit=options.limit)
    configs = {name: settings_of(name, options.samples) for name in options.programs}
    anyone = next(iter(configs.values()))
    engine = build_engine(anyone.engine, 1, anyone.scheduler)
    rewards: RewardModel | None = None
    results = []
    try:
        await engine.start()
        for name, config in configs.items():
            serving = engine
            if algorithm_of(config).scored:
                if rewards is None:
                    rewards = build_reward(config)
                    await rewards.start()
                serving = RewardedEngine(engine, rewards)
            results += await run_one(name, config, suite, serving, options, console)
    finally:
        await engine.close()
        if rewards is not None:
            await rewards.close()
    return results


def line_of(row: dict[str, Any]) -> str:
    """A row of the table, in Markdown."""

    def between(ends: tuple[float, float], scale: float = 1) -> str:
        return f"[{scale * ends[0]:.1f}, {scale * ends[1]:.1f}]"

    change = ratio = "-"
    if row["tokens_ratio"] is not None:
        change = f"{row['accuracy_change']:+.1f} {between(row['accuracy_change_interval'])}"
        ratio = f"**{row['tokens_ratio']:.1%}** {between(row['tokens_ratio_interval'], 100)}"
    reasons = sorted(row["reasons"].items(), key=lambda item: -item[1])
    cells = (
        row["program"],
        row["name"],
        f"{100 * row['accuracy']:.1f} {between(row['accuracy_interval'], 100)}",
        change,
        f"{row['samples']:.1f}",
        f"{row['tokens']:,.0f}",
        ratio,
        ", ".join(f"{reason} {count}" for reason, count in reasons),
    )
    return f"| {' | '.join(cells)} |\n"


HEAD = """\
| program | system | accuracy, % | change, points | samples | tokens | of full | stopped |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="embedded")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--programs", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument(
        "--no-certaindex", action="store_false", dest="certaindex", help="the full budget alone"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/programs"))
    options = parser.parse_args()
    results = asyncio.run(run(options))
    (options.out / "table.md").write_text(HEAD + "".join(map(line_of, results)), encoding="utf-8")
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
