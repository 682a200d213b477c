"""Who runs when in the online benchmark, on engines that only take notes."""

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dynasor import embedded_model
from dynasor.bench.arrivals import parse_traffic
from dynasor.bench.online import Benchmark, StageRun, run_online
from dynasor.bench.online_folder import OnlineFolder
from dynasor.bench.online_profile import PROFILES, choose_profile
from dynasor.bench.reference import Reference
from dynasor.bench.systems import all_systems
from dynasor.bench.workload import Completion
from dynasor.errors import EngineError, RunError
from dynasor.suites import Query, Suite
from dynasor.vote_weights import read_evidence

SUITE = Suite("two", (Query("a", "", "1", {}), Query("b", "", "1", {})), "boxed")
KNOWN = read_evidence(embedded_model.evidence())
SYSTEMS = {system.name: system for system in all_systems("default", 4, evidence=None)}


class Machine:
    """Engines on which every answer takes a second, until one dies."""

    def __init__(self, dies_after=None):
        self.runs, self.opened, self.open = [], [], 0
        self.dies_after = dies_after

    @asynccontextmanager
    async def start(self, system):
        assert not self.open, "one engine at a time"
        self.open += 1
        self.opened.append(system.policy)
        try:
            yield self
        finally:
            self.open -= 1

    async def reference(self, *, capacity):
        return Reference({"query": 1.0}, 100.0, 100.0 if capacity else None)

    async def run(self, point, system, arrivals, window, keep):
        assert self.opened[-1] == system.policy
        for place, arrival in enumerate(arrivals):
            keep(Completion(arrival, 1.0, None, True, 100, 1, "certain"))
            if place and len(self.runs) == self.dies_after:
                raise EngineError("the engine died")
        self.runs.append((point.system, point.rate, point.repeat))
        return StageRun(1.0, {}, {})


class Quiet:
    def begin(self, point, arrivals):
        pass

    def completed(self, completion):
        pass

    def ended(self, result, reference):
        pass


def benchmark(names, rates, repeats=1):
    profile = choose_profile("quick", repeats=repeats, scales=0)
    return Benchmark(
        systems=tuple(SYSTEMS[name] for name in names),
        suite=SUITE,
        traffic=parse_traffic("poisson"),
        profile=profile,
        scale=5,
        rates=rates,
        scale_rate=None,
        chats=0.0,
        seed=1,
    )


async def play(tmp_path, wanted, machine):
    with OnlineFolder(tmp_path, {"suite": "two"}) as folder:
        await run_online(wanted, folder, machine.start, Quiet())
    return machine


async def test_systems_take_turns_forwards_and_backwards(tmp_path):
    machine = await play(tmp_path, benchmark(["vanilla", "+gang"], (1.0, 2.0, 3.0, 4.0)), Machine())
    names = "".join(name[0] for name, _, _ in machine.runs)
    assert names == "v++vv++v"
    assert [rate for _, rate, _ in machine.runs] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert machine.opened == ["vllm", "gang-fcfs", "vllm", "gang-fcfs", "vllm"]


async def test_all_rates_run_once_before_any_is_repeated(tmp_path):
    machine = await play(tmp_path, benchmark(["vanilla", "+gang"], (1.0, 2.0), 2), Machine())
    assert [repeat for _, _, repeat in machine.runs] == [0] * 4 + [1] * 4
    assert len(set(machine.runs)) == 8


async def test_systems_with_one_scheduler_share_an_engine(tmp_path):
    machine = await play(tmp_path, benchmark(["vanilla", "+certaindex"], (1.0, 2.0)), Machine())
    assert machine.opened == ["vllm"]


async def test_an_engine_that_dies_keeps_what_was_run_and_the_rest_follows(tmp_path):
    wanted = benchmark(["vanilla", "+gang"], (1.0, 2.0))
    with pytest.raises(EngineError, match="died; the results so far are kept"):
        await play(tmp_path, wanted, Machine(dies_after=2))
    first = (tmp_path / "points.jsonl").read_bytes()
    assert first.count(b"\n") == 2
    machine = await play(tmp_path, wanted, Machine())
    assert len(machine.runs) == 2
    assert (tmp_path / "points.jsonl").read_bytes().startswith(first)
    assert machine.open == 0
    again = await play(tmp_path, wanted, Machine())
    assert again.opened == [], "nothing is missing: no engine is started"


async def test_a_folder_that_was_measured_with_other_classes_is_refused(tmp_path):
    wanted = benchmark(["vanilla"], (1.0,))
    await play(tmp_path, wanted, Machine())
    other = Suite("two", (Query("a", "", "1", {"slo_class": "hard"}),), "boxed")
    with pytest.raises(RunError, match="without the class 'hard'"):
        await play(tmp_path, replace(wanted, suite=other), Machine())


def test_the_ablation_runs_few_rates_and_none_beyond():
    ablation = PROFILES["ablation"]
    assert not ablation.beyond
    systems = len(all_systems("default", 4, evidence=KNOWN))
    assert systems * len(ablation.factors) * (ablation.duration + ablation.patience) < 14 * 60
