"""An online run against the full budget: accuracy on the same questions, and the ratio of the rates.

python benchmarks/online_against_full.py RUN OUTCOMES [--system ours] [--draws 2000]

RUN is a folder of `dynasor bench online`; OUTCOMES the outcomes.jsonl of the full budget on the same
questions (`dynasor bench` writes full/outcomes.jsonl). For each run: answers in time with and without
those that were cut short, and the change in accuracy with its standard error. Then the highest rate with
90% in time of each system (cut ones not counted), and the ratio over redrawn queries.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from dynasor.bench.online_folder import COMPLETIONS, POINTS, REFERENCE
from dynasor.bench.slo import CUT_SHORT, Window, highest_rate, slowdown
from dynasor.bench.workload import Arrival, Completion


def main() -> None:
    arguments = _arguments()
    unloaded = json.loads((arguments.run / REFERENCE).read_text())["unloaded"]
    full = {row["query"]: row["correct"] for row in _rows(arguments.outcomes)}
    lines = _rows(arguments.run / COMPLETIONS)
    met: dict[str, dict[float, list[bool]]] = {}
    print("system      rate  scale  queries  in time  not cut   cut  accuracy change, points")
    for row in sorted(_rows(arguments.run / POINTS), key=lambda row: list(row["point"].values())):
        point, window = row["point"], Window(*row["window"])
        counted = [
            Completion(**line["completion"] | {"arrival": Arrival(**line["arrival"])})
            for line in lines
            if (line["point"], line["attempt"]) == (point, row["attempt"])
            and window.holds(line["arrival"]["time"])
        ]
        scale = point["scale"]
        late = [c.latency > scale * unloaded[c.arrival.group] for c in counted]
        whole = [slowdown(c, unloaded) <= scale for c in counted]
        change = 100 * np.array(
            [float(bool(c.correct)) - full[c.arrival.question] for c in counted]
        )
        cut = np.mean([c.reason == CUT_SHORT for c in counted])
        print(
            f"{point['system']:<10} {point['rate']:>5g} {scale:>6g} {len(counted):>8} "
            f"{1 - np.mean(late):>8.1%} {np.mean(whole):>8.1%} {cut:>5.0%}  "
            f"{change.mean():+.1f} +- {change.std() / len(change) ** 0.5:.1f}"
        )
        if scale == arguments.scale:
            met.setdefault(point["system"], {}).setdefault(point["rate"], []).extend(whole)
    random = np.random.default_rng(0)
    rates = {}
    for system in ("vanilla", arguments.system):
        points = {rate: float(np.mean(values)) for rate, values in met[system].items()}
        rates[system] = np.array([
            highest_rate({
                rate: random.binomial(len(values), np.mean(values)) / len(values)
                for rate, values in met[system].items()
            }).value or np.nan
            for _ in range(arguments.draws)
        ])  # fmt: skip
        print(f"{system}: highest rate {highest_rate(points).value:.2f}/s")
    ratio = rates[arguments.system] / rates["vanilla"]
    low, middle, high = np.nanquantile(ratio, [0.025, 0.5, 0.975])
    print(f"ratio: {middle:.2f} [{low:.2f}, {high:.2f}], {np.isnan(ratio).mean():.0%} without one")


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--system", default="ours")
    parser.add_argument("--scale", type=float, default=5.0)
    parser.add_argument("--draws", type=int, default=2000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
