"""Study of the stop rules: python benchmarks/stop_rules.py TRACE... [--json FILE] [--plot FILE].

Each trace is one set. One half of its questions chooses each rule's setting, the other half measures
(see `halves.py`); one setting for all sets. The setting of a published rule is the one with the
fewest tokens (geometric mean over sets) among those that lose at most LIMIT points on every set's
tuning half. `hindsight` is Adaptive-Consistency with the best threshold for each set, chosen on the
measuring half itself: no rule, but a bound.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from frontier import plot_frontier
from halves import tuning_half
from numpy.typing import NDArray

from certaindex.stopping import parse_rule
from certaindex.value import value_of_next_sample
from dynasor.intervals import bootstrap
from dynasor.replay import RecordedQuery, collect_queries, replay
from dynasor.replay_budget import replay_budget
from dynasor.traces import read_traces

LIMIT = 0.5  # points
WAVES = (1, 2, 4, 8)
AC = "adaptive-consistency"
_LEADS = (0.75, 0.8, 0.85, 0.875, 0.886, 0.91, 0.937, 0.945, 0.96, 0.98, 0.99)
GRID: dict[str, list[str]] = {
    "default": [f"default:{c}" for c in (-1.5, -1, -0.5, 0, 0.5, 1, 2)],
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
"""(questions, 4): right, tokens, latency, loss, as `RuleResult.by_query`."""


class Measured:
    """One set: its questions, and each setting's means a question for each wave."""

    def __init__(self, path: Path, orders: int) -> None:
        self.name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        self.queries: list[RecordedQuery] = collect_queries(read_traces(path))
        tuning = tuning_half(query.id for query in self.queries)
        self.tuning = np.array([query.id in tuning for query in self.queries])
        # A small set gets more orders, up to ten times: its few questions are cheap.
        self.orders = orders * max(1, min(5, 300 // len(self.queries)))
        self.settings: dict[tuple[str, int], Means] = {}
        self.full_tokens = np.zeros(0)

    def measure(self, texts: list[str], wave: int) -> None:
        rules = {text: parse_rule(text) for text in texts}
        for result in replay(self.queries, rules, orders=self.orders, wave=wave).rules:
            self.settings[result.rule, wave] = result.by_query

    def of(self, text: str, *, tuning: bool, wave: int = 1) -> Means:
        return self.settings[text, wave][self.tuning == tuning]


def mean_tokens(
    sets: list[Measured], text: str, *, tuning: bool, wave: int = 1
) -> NDArray[np.float64]:
    return np.array([one.of(text, tuning=tuning, wave=wave)[:, 1].mean() for one in sets])


def losses(sets: list[Measured], text: str, *, tuning: bool) -> NDArray[np.float64]:
    return np.array([one.of(text, tuning=tuning)[:, 3].mean() for one in sets])


def best_single(sets: list[Measured], texts: list[str]) -> str | None:
    """Fewest tokens among the settings within the limit on every tuning half."""
    fits = [text for text in texts if (losses(sets, text, tuning=True) <= LIMIT).all()]
    return min(
        fits, key=lambda text: np.log(mean_tokens(sets, text, tuning=True)).mean(), default=None
    )


def hindsight(one: Measured) -> str:
    """The threshold of Adaptive-Consistency that is best for this set's measuring half."""
    fits = [text for text in GRID[AC] if one.of(text, tuning=False)[:, 3].mean() <= LIMIT]
    return min(fits or [GRID[AC][-1]], key=lambda text: one.of(text, tuning=False)[:, 1].mean())


def ratio(
    sets: list[Measured], mine: list[str], theirs: list[str], draws: int = 2000
) -> dict[str, object]:
    """Geometric mean over sets of the tokens of `mine` over `theirs`, with a bootstrap interval."""
    random = np.random.default_rng(0)
    resampled, logs = np.zeros(draws), []
    for one, a, b in zip(sets, mine, theirs, strict=True):
        up, down = (one.of(text, tuning=False)[:, 1] for text in (a, b))
        logs.append(np.log(up.mean() / down.mean()))
        picks = random.integers(len(up), size=(draws, len(up)))
        resampled += np.log(up[picks].mean(axis=1) / down[picks].mean(axis=1)) / len(sets)
    low, high = np.exp(np.quantile(resampled, [0.025, 0.975]))
    return {"ratio": float(np.exp(np.mean(logs))), "interval": [float(low), float(high)]}


def chosen_settings(sets: list[Measured]) -> list[dict[str, object]]:
    """Each family at its best single setting, on the measuring halves; and the default as shipped."""
    full = [GRID["fixed"][-1]] * len(sets)
    rows = []
    settings = {name: best_single(sets, texts) for name, texts in GRID.items()}
    for family, text in [("default as shipped", "default:0"), *settings.items()]:
        if text is None:
            rows.append({"family": family, "setting": None})
            continue
        lost = losses(sets, text, tuning=False)
        same = [text] * len(sets)
        row = {"family": family, "setting": text, "to_full": ratio(sets, same, full)}
        row["default_to_it"] = ratio(sets, ["default:0"] * len(sets), same)
        row["loss_mean"], row["loss_largest"] = float(lost.mean()), float(lost.max())
        rows.append(row)
    bound = [hindsight(one) for one in sets]
    rows.append(
        {"family": f"{AC}, hindsight for each set", "setting": "best for each set",
         "to_full": ratio(sets, bound, full),
         "default_to_it": ratio(sets, ["default:0"] * len(sets), bound)}
    )  # fmt: skip
    return rows


def per_set(one: Measured) -> dict[str, object]:
    """The default on the measuring half of one set."""
    mine = one.of("default:0", tuning=False)
    full = one.of(GRID["fixed"][-1], tuning=False)
    bound = hindsight(one)
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
        "hindsight_ratio": float(one.of(bound, tuning=False)[:, 1].mean() / full[:, 1].mean()),
    }


def global_budget(one: Measured, share: float = 0.7) -> dict[str, object]:
    """Accuracy of the global budget at `share` of the default's tokens, less the default's."""
    queries = [q for q, tuning in zip(one.queries, one.tuning, strict=True) if not tuning]
    orders = min(one.orders, 100)
    alone = replay(queries, {"default": parse_rule("default")}, orders=orders)
    mine = alone.rules[0]
    shared = replay_budget(
        queries, value_of_next_sample, budget=share * mine.tokens_ratio, orders=orders
    )
    gain = 100 * (shared.by_query[:, 0] - mine.by_query[:, 0])
    return {"set": one.name, "gain": float(gain.mean()), "interval": list(bootstrap(gain))}


def wave_rows(sets: list[Measured]) -> list[dict[str, object]]:
    """Tokens and latency against the full budget at one sample at a time, geometric means."""
    rows = []
    full = GRID["fixed"][-1]
    for wave in WAVES:
        for text in ("default:0", "adaptive-consistency:0.945", "fixed:16", full):
            tokens, latency = (
                [one.of(text, tuning=False, wave=wave)[:, k].mean()
                 / one.of(full, tuning=False)[:, 1].mean() for one in sets]
                for k in (1, 2)
            )  # fmt: skip
            loss = [one.of(text, tuning=False, wave=wave)[:, 3].mean() for one in sets]
            rows.append(
                {"wave": wave, "rule": text, "tokens": float(np.exp(np.log(tokens).mean())),
                 "latency": float(np.exp(np.log(latency).mean())), "loss": float(np.mean(loss))}
            )  # fmt: skip
    return rows


def curves(sets: list[Measured]) -> dict[str, list[tuple[float, float]]]:
    """Family -> (tokens against the full budget, mean loss) of each setting, measuring halves."""
    full = np.log(mean_tokens(sets, GRID["fixed"][-1], tuning=False))
    return {
        family: [
            (float(np.exp((np.log(mean_tokens(sets, text, tuning=False)) - full).mean())),
             float(losses(sets, text, tuning=False).mean()))
            for text in texts
        ]
        for family, texts in GRID.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE")
    parser.add_argument("--orders", type=int, default=20, help="random orders a question")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="write the frontier here (PNG)")
    options = parser.parse_args()
    sets = [Measured(path, options.orders) for path in options.traces]
    for one in sets:
        one.measure([text for texts in GRID.values() for text in texts], wave=1)
        for wave in WAVES[1:]:
            texts = ["default:0", "adaptive-consistency:0.945", "fixed:16", GRID["fixed"][-1]]
            one.measure(texts, wave)
        print(f"measured {one.name}", flush=True)
    report = {
        "families": chosen_settings(sets),
        "sets": [per_set(one) for one in sets],
        "waves": wave_rows(sets),
        "global_budget": [global_budget(one) for one in sets],
        "curves": curves(sets),
    }
    for name in ("families", "sets", "waves", "global_budget"):
        print(name, *(json.dumps(row) for row in report[name]), sep="\n  ")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot_frontier(report["curves"], report["waves"], options.plot)


if __name__ == "__main__":
    main()
