"""Systems on simulated replicas, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from math import ceil
from typing import Literal

import numpy as np

from algorithms.self_consistency import Weigh
from certaindex.early_cut import EarlyCut
from certaindex.stopping import parse_rule
from dynasor.bench.arrivals import CHAT, group_of
from dynasor.bench.live_run import Keep
from dynasor.bench.online import StageRun
from dynasor.bench.online_plan import Point
from dynasor.bench.recorded import RecordedQuestion, self_consistency
from dynasor.bench.reference import Reference, spread
from dynasor.bench.service import allocator_of
from dynasor.bench.simulation import VLLM, Cluster, Simulated, simulate
from dynasor.bench.slo import Window
from dynasor.bench.systems import OnlineSystem
from dynasor.bench.workload import Arrival, Completion
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.ranking.ranked import Ranked
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.queue import Aging
from dynasor.suites import Query, Suite

LEVELS = 5
FAR_APART = 1e7
"""Seconds between queries that shall not meet."""
_SATURATED = 6.0  # queries at once, in units of what fills the batches
_COUNTED = 0.7  # of these, the part before the batches empty


def suite_of(
    name: str, questions: Mapping[str, RecordedQuestion], *, by_question: bool = False
) -> Suite:
    """The recorded questions as a suite; what they ask is not needed.

    A trace does not say how hard a question is. Its level, and so its class for SLOs, is the fifth of
    the questions into which its recorded samples fall by their mean length.

    Args:
        name: of the suite.
        questions: as recorded.
        by_question: make each question a class of its own instead.
    """
    if by_question:
        return Suite(
            name, tuple(Query(q, "", None, {"slo_class": q}) for q in sorted(questions)), "boxed"
        )
    by_length = sorted(questions, key=lambda q: (np.mean(questions[q].query.tokens), q))
    levels = {q: 1 + LEVELS * place // len(by_length) for place, q in enumerate(by_length)}
    queries = tuple(
        Query(question, "", None, {"level": levels[question]}) for question in questions
    )
    return Suite(name, queries, "boxed")


class SimulatedStage:
    """Runs systems on a cluster.

    Args:
        cluster: size and speed.
        vanilla: the system that is measured for reference.
        questions: the recorded samples.
        suite: the same questions.
        samples: full budget of a query.
        alone: queries a class whose unloaded latency is measured; a class of fewer questions has
            some of them asked again, with other samples.
        chats: share of plain chats.
        aging: starvation guard of the gang policies.
        ranked: what a ranker says of each question; empty for no ranks.
        weigh: vote weight of a sample for systems that weigh, or None.
        fit_memory: whether gang policies look ahead in memory.
        cut: which running samples are cut by systems that do so, or None.
    """

    def __init__(
        self,
        cluster: Cluster,
        vanilla: OnlineSystem,
        questions: Mapping[str, RecordedQuestion],
        suite: Suite,
        *,
        samples: int,
        alone: int,
        chats: float,
        aging: Aging | None,
        ranked: Mapping[str, Ranked],
        weigh: Weigh | None,
        fit_memory: bool = True,
        cut: EarlyCut | None,
    ) -> None:
        self._cluster = cluster
        self._vanilla = vanilla
        self._questions = questions
        self._suite = suite
        self._samples = samples
        self._alone = alone
        self._chats = chats
        self._aging = aging
        self._ranked = ranked
        self._weigh = weigh
        self._fit_memory = fit_memory
        self._lone: tuple[dict[str, float], float] | None = None
        self._cut = cut

    async def reference(self, *, capacity: bool) -> Reference:
        """Vanilla alone, then at saturation where its capacity is asked for."""
        return await asyncio.to_thread(self._measure, capacity)

    def _measure(self, capacity: bool) -> Reference:
        self._lone = self._lone or self._alone_on_one()
        return Reference(*self._lone, self._throughput() if capacity else None)

    def _alone_on_one(self) -> tuple[dict[str, float], float]:
        """Median latency of each class alone on a replica, seconds; mean tokens of an arrival."""
        classes: dict[str, list[Query]] = {}
        for query in self._suite.queries:
            classes.setdefault(group_of(query), []).append(query)
        shares = {name: (1 - self._chats) * len(members) for name, members in classes.items()}
        if self._chats:
            classes[CHAT] = list(self._suite.queries)
            shares[CHAT] = self._chats * len(self._suite.queries)
        alone = [
            (name, query)
            for name, members in classes.items()
            for query in islice(cycle(spread(members, self._alone)), self._alone)
        ]
        lone = [
            _arrival(f"alone-{number}", name, query, FAR_APART * number)
            for number, (name, query) in enumerate(alone)
        ]
        ended = self._simulate(self._vanilla, lone, 1)
        unloaded: dict[str, float] = {}
        tokens = 0.0
        by_class: dict[str, list[Completion]] = {}
        for completion in ended.completions:
            by_class.setdefault(completion.arrival.group, []).append(completion)
        for name, share in shares.items():
            members_ended = by_class[name]
            unloaded[name] = float(np.median([c.latency for c in members_ended]))
            mean = float(np.mean([c.tokens for c in members_ended]))
            tokens += share / len(self._suite.queries) * mean
        return unloaded, tokens

    def _throughput(self) -> float:
        """Output tokens a second while all batches are full."""
        slots = self._cluster.replica.max_running * self._cluster.replicas
        count = ceil(_SATURATED * slots / self._samples)
        queries = self._suite.queries
        crowd = [
            _arrival(f"full-{n}", group_of(q), q, 0.0)
            for n, q in ((n, queries[n % len(queries)]) for n in range(count))
        ]
        ended = self._simulate(self._vanilla, crowd, self._cluster.replicas).completions
        counted = ended[: max(1, int(_COUNTED * len(ended)))]
        return sum(c.tokens for c in counted) / counted[-1].latency

    async def run(
        self,
        point: Point,
        system: OnlineSystem,
        arrivals: Sequence[Arrival],
        window: Window,
        keep: Keep,
    ) -> StageRun:
        """One run, to the end of all arrivals."""
        told = [
            arrival if system.when_due else replace(arrival, deadline=None) for arrival in arrivals
        ]
        ended = await asyncio.to_thread(
            self._simulate, system, told, self._cluster.replicas, point.repeat
        )
        due = {arrival.id: arrival for arrival in arrivals}
        for completion in ended.completions:
            keep(replace(completion, arrival=due[completion.arrival.id]))
        return StageRun(ended.seconds, {}, ended.counters())

    def _simulate(
        self, system: OnlineSystem, workload: Sequence[Arrival], replicas: int, seed: int = 0
    ) -> Simulated:
        slots = self._cluster.replica.max_running * replicas
        return simulate(
            workload,
            self._questions,
            replace(self._cluster, replicas=replicas, replica=self._replica(system)),
            allocator_of(system, self._samples, slots),
            samples=self._samples,
            policy=system.policy,
            aging=self._aging,
            forecast=self._forecast(system),
            ranked=None if system.hints == "none" else self._ranked,
            when_due=system.when_due,
            program=self_consistency(
                self._weigh if system.weighs else None, self._cut if system.cuts else None
            ),
            seed=seed,
        )

    def _replica(self, system: OnlineSystem) -> ReplicaSettings:
        """A replica with the scheduler of a system, and with the log-probabilities that it wants."""
        replica = self._cluster.replica
        return replace(
            replica,
            step_time=replica.step_time.with_logprobs() if system.weighs else replica.step_time,
            fit_memory=self._fit_memory and system.policy != VLLM,
        )

    def _forecast(self, system: OnlineSystem) -> Forecast | None:
        if system.hints != "forecast":
            return None
        return Forecast(parse_rule(system.stop_rule(self._samples)))


def _arrival(name: str, group: str, query: Query, time: float) -> Arrival:
    kind: Literal["chat", "query"] = "chat" if group == CHAT else "query"
    return Arrival(name, time, query.id, kind, group, None)
