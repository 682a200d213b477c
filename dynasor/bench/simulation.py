"""The online benchmark in virtual time: real programs, allocator and policies, simulated replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dynasor.allocator import Allocator
from dynasor.bench.cluster import Cluster
from dynasor.bench.recorded import (
    BuildProgram,
    RecordedQuestion,
    check_budget,
    self_consistency,
)
from dynasor.bench.virtual_front_end import ByGroup, FrontEnd
from dynasor.bench.workload import Arrival, Completion
from dynasor.engines.simulated import Replica
from dynasor.engines.simulated_job import Counters, Job, Queue
from dynasor.ranking.ranked import Ranked
from dynasor.scheduling.arrival_queue import ArrivalQueue
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.policies import parse_policy
from dynasor.scheduling.queue import Aging, GangQueue

__all__ = ["VLLM", "Cluster", "Simulated", "queue_builder", "simulate"]

VLLM = "vllm"
"""Name of the policy that is vLLM's own: single requests, first come, first served."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """Result of a simulation.

    Attributes:
        completions: in order of their end.
        replicas: what each replica counted.
        seconds: virtual time at the last end.
    """

    completions: list[Completion]
    replicas: list[Counters]
    seconds: float

    def counters(self) -> dict[str, float]:
        """Totals by the names that the real engine gives them; shares are means over steps."""
        steps = sum(each.steps for each in self.replicas)
        return {
            "steps": steps,
            "preemptions": sum(each.preemptions for each in self.replicas),
            "recomputed_tokens": sum(each.recomputed_tokens for each in self.replicas),
            "kv_peak": max(each.kv_peak for each in self.replicas),
            "kv_mean": sum(each.kv_sum for each in self.replicas) / max(steps, 1),
            "running_mean": sum(each.running_sum for each in self.replicas) / max(steps, 1),
            "busy_seconds": sum(each.seconds for each in self.replicas),
        }


def simulate(
    workload: Iterable[Arrival],
    questions: Mapping[str, RecordedQuestion],
    cluster: Cluster,
    allocator: Allocator,
    *,
    samples: ByGroup[int],
    policy: str = "default",
    aging: Aging | None = None,
    forecast: ByGroup[Forecast] | None = None,
    ranked: Mapping[str, Ranked] | None = None,
    when_due: bool = False,
    program: BuildProgram | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Simulated:
    """Serve a workload in virtual time; same arguments, same result.

    Args:
        workload: arrivals in order of time.
        questions: recorded samples by the name that arrivals give.
        cluster: what serves.
        allocator: a fresh one; decides for all queries.
        samples: full budget of a query, or of each group's; a chat is one sample.
        policy: order of the waiting, see `dynasor.scheduling.policies`; `vllm` is vLLM's own.
        aging: starvation guard of the gang policies.
        forecast: a fresh one, or each group's; foresees a query's work for scheduler and router, None
            for none.
        ranked: what a ranker says of each question, None for no ranks.
        when_due: see `dynasor.runtime.Runtime.solve`.
        program: builds that of a query; its requests must be whole samples. Plain self-consistency where
            None.
        seed: of the order in which each arrival gets the recorded samples.
        progress: called with the number of completions, from time to time.

    Raises:
        DataError: if an arrival is out of order or asks an unknown question, or samples lack.
        ConfigError: if there is no such policy.
        EngineError: if a sample is larger than a replica's KV cache.
    """
    check_budget(questions, max(samples.values()) if isinstance(samples, Mapping) else samples)
    build = queue_builder(policy, aging)
    replicas = [Replica(cluster.replica, build) for _ in range(cluster.replicas)]
    front = FrontEnd(
        replicas,
        cluster,
        build,
        questions,
        allocator,
        samples,
        forecast,
        ranked or {},
        when_due,
        program or self_consistency(),
        str(seed),
    )
    front.run(workload, progress)
    return Simulated(front.completions, [each.counters for each in replicas], front.now)


def queue_builder(
    policy: str, aging: Aging | None = None
) -> Callable[[Callable[[], float]], Queue]:
    """Builder of a replica's queue.

    Raises:
        ConfigError: if there is no such policy.
    """
    if policy == VLLM:
        return lambda clock: ArrivalQueue[Job]()
    chosen = parse_policy(policy)
    return lambda clock: GangQueue[Job](chosen, clock, aging=aging)
