"""Live latencies against simulated ones, of the same arrivals.

python benchmarks/simulator_validation.py RUN TRACE CALIBRATION... [--system vanilla] [--json FILE]

RUN is a folder of `dynasor bench online` on the real engine, TRACE the recorded samples of the same
questions, CALIBRATION what `dynasor calibrate` said of that engine. A shared machine changes its speed
within minutes: give a calibration of before the run and one of after it, and each counts as much. Each
run of the system is repeated in virtual time with the arrivals that were answered live; which of the
recorded samples a query draws is left to chance, so mean and 90% quantile are compared, with an interval
over redrawn simulations and calibrations.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from certaindex.early_cut import EarlyCut
from certaindex.stopping import parse_rule
from dynasor.bench.online_folder import COMPLETIONS, POINTS
from dynasor.bench.recorded import collect_questions, self_consistency
from dynasor.bench.service import allocator_of
from dynasor.bench.simulation import VLLM, Cluster, simulate
from dynasor.bench.slo import Window
from dynasor.bench.systems import OnlineSystem, all_systems
from dynasor.bench.workload import Arrival
from dynasor.engines.calibration import Calibration
from dynasor.scheduling.aging import Aging
from dynasor.scheduling.forecast import Forecast
from dynasor.traces import read_traces
from dynasor.vote_weights import read_evidence


def main() -> None:
    arguments = _arguments()
    questions = collect_questions(read_traces(arguments.trace))
    evidence = read_evidence(arguments.evidence) if arguments.evidence else None
    known = {s.name: s for s in all_systems("default", 4, evidence=evidence)}
    system = known[arguments.system]
    clusters = [_cluster(Calibration.read(path), system) for path in arguments.calibrations]
    rule = parse_rule(system.stop_rule(arguments.samples))
    completions = _rows(arguments.run / COMPLETIONS)
    found = []
    print("rate    queries  mean: live  simulated  ratio            p90: live  simulated  ratio")
    for row in sorted(_rows(arguments.run / POINTS), key=lambda row: row["point"]["rate"]):
        point, window = row["point"], Window(*row["window"])
        if point["system"] != system.name:
            continue
        lived = [c for c in completions if (c["point"], c["attempt"]) == (point, row["attempt"])]
        arrivals = sorted((Arrival(**c["arrival"]) for c in lived), key=lambda a: a.time)
        live = [c["completion"]["latency"] for c in lived if window.holds(c["arrival"]["time"])]
        draws = []
        for seed, cluster in product(range(arguments.draws), clusters):
            ended = simulate(
                arrivals,
                questions,
                cluster,
                allocator_of(system, arguments.samples, cluster.replica.max_running),
                samples=arguments.samples,
                policy=system.policy,
                aging=Aging(),
                forecast=Forecast(rule) if system.hints == "forecast" else None,
                when_due=system.when_due,
                program=self_consistency(
                    (lambda s: evidence.weigh(s.logprobs)) if evidence and system.weighs else None,
                    EarlyCut.of(evidence) if evidence and system.cuts else None,
                ),
                seed=seed,
            )
            draws.append([c.latency for c in ended.completions if window.holds(c.arrival.time)])
        result = {"rate": point["rate"], "queries": len(live)}
        for name, measure in (("mean", np.mean), ("p90", lambda x: np.quantile(x, 0.9))):
            simulated = [float(measure(draw)) for draw in draws]
            ratios = np.array(simulated) / float(measure(live))
            result[name] = {
                "live": float(measure(live)),
                "simulated": float(np.mean(simulated)),
                "ratio": float(ratios.mean()),
                "interval": np.quantile(ratios, [0.025, 0.975]).tolist(),
            }
        found.append(result)
        print(f"{point['rate']:<7g} {len(live):>7}", *(_cells(result[m]) for m in ("mean", "p90")))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def _cluster(calibration: Calibration, system: OnlineSystem) -> Cluster:
    replica = replace(calibration.replica(), fit_memory=system.policy != VLLM)
    if system.weighs:
        replica = replace(replica, step_time=replica.step_time.with_logprobs())
    return Cluster(replica, 1, per_request=calibration.per_request)


def _cells(result: dict[str, float]) -> str:
    low, high = result["interval"]
    return (
        f"{result['live']:>10.2f} {result['simulated']:>10.2f}  "
        f"{result['ratio']:.2f} [{low:.2f}, {high:.2f}]"
    )


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("trace", type=Path)
    parser.add_argument("calibrations", type=Path, nargs="+")
    parser.add_argument("--system", default="vanilla")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--draws", type=int, default=10, help="simulations of each run")
    parser.add_argument("--evidence", type=Path, help="for systems that weigh their votes")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
