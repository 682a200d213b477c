"""Study of the stop rules: python benchmarks/stop_rules.py TRACE... --second FILE [--json FILE].

Each trace is one set. Half of its questions tunes a rule, the other half measures it, and then the
other way round (see `halves.py`), so that every question counts and none measures what it tuned. For
the default, that is the shipped one and the one that the second halves taught (`--second`, made by
`fit_default_rule.py --half second`). A published rule has one setting for all sets: the one with the
fewest tokens (geometric mean over sets) among those that lose at most ALLOWED points on the tuning
halves, in the mean over sets, where a set that gains counts as one that loses nothing: the terms on
which the default is fitted. `hindsight` is Adaptive-Consistency with the best threshold for each set
among those that lose at most LIMIT points on it, chosen on the very questions that measure it: no
rule, but a bound.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from fit_default_rule import ALLOWED
from frontier import plot_frontier
from halves import tuning_half
from numpy.typing import NDArray

from certaindex.rules.learned import Experience, Learned, shipped
from certaindex.rules.verdict import StopRule
from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from dynasor.intervals import bootstrap
from dynasor.replay import RecordedQuery, collect_queries, replay
from dynasor.replay_budget import replay_budget
from dynasor.replay_results import RuleResult
from dynasor.traces import read_traces

LIMIT = 0.5  # points
WAVES = (1, 2, 4, 8)
SHARES = (0.7, 1.0)  # of the default's tokens, for the global budget
AC = "adaptive-consistency"
FULL = "fixed:64"
SHOWN = ["default:0", f"{AC}:0.886", "fixed:16", FULL]  # at every wave
_LEADS = (0.75, 0.8, 0.85, 0.875, 0.886, 0.91, 0.937, 0.945, 0.96, 0.98, 0.99)
GRID: dict[str, list[str]] = {
    "default": [f"default:{c}" for c in (-1, -0.5, 0, 0.5, 1, 2)],
    AC: [f"{AC}:{t}" for t in _LEADS],
    "esc": [f"esc:{w}" for w in (2, 3, 4, 5, 6, 8)],
    "sprt": [f"sprt:alpha={a},beta={a},share={s}" for a in (0.05, 0.2, 0.3) for s in (0.7, 0.9)],
    "msprt": [f"msprt:{a}" for a in (0.1, 0.2, 0.3, 0.5)],
    "bayes-factor": [f"bayes-factor:{b}" for b in (3, 10, 30, 100, 300)],
    "eprocess": [f"eprocess:{a}" for a in (0.2, 0.5, 0.9)],
    "certaindex": [f"certaindex:{t},min={m}" for t in (0.6, 0.8, 1.0) for m in (2, 3, 4, 6)],
    "leader-change": [f"leader-change:{r}" for r in (0.03, 0.07, 0.12, 0.2)],
    "fixed": [f"fixed:{n}" for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)],
}

Means = NDArray[np.float64]
"""(questions, columns): right, tokens, latency, loss, as `RuleResult.by_query`."""


class Measured:
    """One set: its questions, and each setting's means a question for each wave.

    What `default` says of a question comes from the experience that did not learn from it.
    """

    def __init__(self, path: Path, orders: int, second: Experience) -> None:
        self.name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        self.queries: list[RecordedQuery] = collect_queries(read_traces(path))
        first = tuning_half(query.id for query in self.queries)
        self.first = np.array([query.id in first for query in self.queries])
        # A small set gets more orders, up to five times: its few questions are cheap.
        self.orders = orders * max(1, min(5, 300 // len(self.queries)))
        self.folds = ((~self.first, shipped()), (self.first, second))
        self.settings: dict[tuple[str, int], Means] = {}
        for wave in WAVES:
            texts = [text for texts in GRID.values() for text in texts] if wave == 1 else SHOWN
            for rows, experience in self.folds:
                self._measure(texts, wave, rows, experience)
        self.global_budget = self._global_budget()

    def _measure(
        self, texts: list[str], wave: int, rows: NDArray[np.bool_], experience: Experience
    ) -> None:
        queries = [query for query, taken in zip(self.queries, rows, strict=True) if taken]
        rules = {text: _with(parse_rule(text), experience) for text in texts}
        for result in replay(queries, rules, orders=self.orders, wave=wave).rules:
            all_rows = self.settings.setdefault(
                (result.rule, wave), np.zeros((len(self.queries), 4))
            )
            all_rows[rows] = result.by_query

    def _global_budget(self) -> Means:
        """(questions, shares): accuracy with this share of the default's tokens, less its own."""
        gains = np.zeros((len(self.queries), len(SHARES)))
        for rows, experience in self.folds:
            queries = [query for query, taken in zip(self.queries, rows, strict=True) if taken]
            orders = min(self.orders, 100)
            alone: RuleResult = replay(
                queries, {"default": Learned(experience=experience)}, orders=orders
            ).rules[0]
            value = partial(value_of_next_sample, experience=experience)
            for column, share in enumerate(SHARES):
                budget = share * alone.tokens_ratio
                shared = replay_budget(queries, value, budget=budget, orders=orders)
                gains[rows, column] = 100 * (shared.by_query[:, 0] - alone.by_query[:, 0])
        return gains

    def of(self, text: str, wave: int = 1) -> Means:
        return self.settings[text, wave]


def _with(rule: StopRule, experience: Experience) -> StopRule:
    return replace(rule, experience=experience) if isinstance(rule, Learned) else rule


def chosen(sets: list[Measured], texts: list[str], *, first: bool) -> str | None:
    """Fewest tokens among the settings that lose no more than is allowed, on these halves."""
    best: tuple[float, str] | None = None
    for text in texts:
        halves = [one.of(text)[one.first == first] for one in sets]
        if np.mean([max(0.0, half[:, 3].mean()) for half in halves]) <= ALLOWED:
            tokens = float(np.mean([np.log(half[:, 1].mean()) for half in halves]))
            best = min(best or (tokens, text), (tokens, text))
    return best[1] if best else None


def crossed(sets: list[Measured], texts: list[str]) -> tuple[list[str], list[Means]] | None:
    """The settings chosen on the first and second halves, and each one's means on the other."""
    on_first, on_second = (chosen(sets, texts, first=first) for first in (True, False))
    if on_first is None or on_second is None:
        return None
    means = [np.where(one.first[:, None], one.of(on_second), one.of(on_first)) for one in sets]
    return [on_first, on_second], means


def hindsight(one: Measured) -> str:
    """The threshold of Adaptive-Consistency that is best for this set, knowing the outcome."""
    fits = [text for text in GRID[AC] if one.of(text)[:, 3].mean() <= LIMIT]
    return min(fits or [GRID[AC][-1]], key=lambda text: one.of(text)[:, 1].mean())


def ratio(mine: list[Means], theirs: list[Means], draws: int = 2000) -> dict[str, object]:
    """Geometric mean over sets of the tokens of `mine` over `theirs`, with a bootstrap interval."""
    random = np.random.default_rng(0)
    resampled, logs = np.zeros(draws), []
    for mine_of_set, theirs_of_set in zip(mine, theirs, strict=True):
        up, down = mine_of_set[:, 1], theirs_of_set[:, 1]
        logs.append(np.log(up.mean() / down.mean()))
        picks = random.integers(len(up), size=(draws, len(up)))
        resampled += np.log(up[picks].mean(axis=1) / down[picks].mean(axis=1)) / len(mine)
    low, high = np.exp(np.quantile(resampled, [0.025, 0.975]))
    return {"ratio": float(np.exp(np.mean(logs))), "interval": [float(low), float(high)]}


def family_rows(sets: list[Measured]) -> list[dict[str, object]]:
    """The default, each published rule at its best single setting, and the bound."""
    full = [one.of(FULL) for one in sets]
    default = [one.of("default:0") for one in sets]
    families: dict[str, tuple[list[str], list[Means]] | None] = {"default": (["0"], default)}
    families |= {name: crossed(sets, texts) for name, texts in GRID.items() if name != "default"}
    bound = [one.of(hindsight(one)) for one in sets]
    families[f"{AC}, hindsight"] = (["best for each set"], bound)
    rows: list[dict[str, object]] = []
    for family, found in families.items():
        if found is None:
            rows.append({"family": family, "settings": None})
            continue
        settings, means = found
        lost = np.array([of_set[:, 3].mean() for of_set in means])
        rows.append(
            {"family": family, "settings": settings, "to_full": ratio(means, full),
             "default_to_it": ratio(default, means), "loss_mean": float(lost.mean()),
             "loss_without_gains": float(np.maximum(lost, 0).mean()),
             "loss_largest": float(lost.max())}
        )  # fmt: skip
    return rows


def set_row(one: Measured) -> dict[str, object]:
    """The default on one set, and the global budget."""
    mine, full, bound = one.of("default:0"), one.of(FULL), hindsight(one)
    low, high = bootstrap(mine[:, 3])
    return {
        "set": one.name,
        "questions": len(mine),
        "full_accuracy": float(full[:, 0].mean()),
        "loss": float(mine[:, 3].mean()),
        "loss_interval": [low, high],
        "within_limit": bool(low <= LIMIT),
        "tokens_ratio": float(mine[:, 1].mean() / full[:, 1].mean()),
        "hindsight": bound,
        "hindsight_ratio": float(one.of(bound)[:, 1].mean() / full[:, 1].mean()),
        "global_budget": {
            share: [float(gain.mean()), *bootstrap(gain)]
            for share, gain in zip(SHARES, one.global_budget.T, strict=True)
        },
    }


def wave_rows(sets: list[Measured]) -> list[dict[str, object]]:
    """Tokens and latency against the full budget at one sample at a time, geometric means."""
    rows: list[dict[str, object]] = []
    for wave in WAVES:
        for text in SHOWN:
            tokens, latency = (
                [one.of(text, wave)[:, column].mean() / one.of(FULL)[:, 1].mean() for one in sets]
                for column in (1, 2)
            )
            loss = [one.of(text, wave)[:, 3].mean() for one in sets]
            rows.append(
                {"wave": wave, "rule": text, "tokens": float(np.exp(np.log(tokens).mean())),
                 "latency": float(np.exp(np.log(latency).mean())), "loss": float(np.mean(loss))}
            )  # fmt: skip
    return rows


def curves(sets: list[Measured]) -> dict[str, list[tuple[float, float]]]:
    """Family -> (tokens against the full budget, mean loss without gains) of each setting."""
    full = [one.of(FULL) for one in sets]
    points: dict[str, list[tuple[float, float]]] = {}
    for family, texts in GRID.items():
        for text in texts:
            means = [one.of(text) for one in sets]
            tokens = np.exp(np.mean([np.log(a[:, 1].mean() / b[:, 1].mean())
                                     for a, b in zip(means, full, strict=True)]))  # fmt: skip
            loss = np.mean([max(0.0, of_set[:, 3].mean()) for of_set in means])
            points.setdefault(family, []).append((float(tokens), float(loss)))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE")
    parser.add_argument("--orders", type=int, default=20, help="random orders a question")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="write the frontier here (PNG)")
    parser.add_argument("--second", type=Path, required=True, help="what the second halves taught")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    second = Experience.from_json(options.second.read_text(encoding="utf-8"))
    sets = []
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(Measured, path, options.orders, second) for path in options.traces]
        for job in jobs:
            sets.append(job.result())
            print(f"measured {sets[-1].name}", flush=True)
    report = {
        "families": family_rows(sets),
        "sets": [set_row(one) for one in sets],
        "waves": wave_rows(sets),
        "curves": curves(sets),
    }
    for name in ("families", "sets", "waves"):
        print(name, *(json.dumps(row) for row in report[name]), sep="\n  ")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot_frontier(report["curves"], report["waves"], options.plot)


if __name__ == "__main__":
    main()
