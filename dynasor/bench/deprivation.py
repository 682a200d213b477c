"""Token deprivation: how often a chain is right that is cut after t tokens and asked for its answer.

Each question gets one chain, probed every so many tokens to its end (`algorithms/dynasor_cot.py`). From
that one run follow both curves: without early stop a chain answers at t with its last probe, or
with its own answer where it has ended; with early stop it answers when the rule says so, if that is
before t, and spends no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from algorithms.dynasor_cot import DynasorCot, Probe
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.allocator import PerQuery
from dynasor.bench.offline import make_program
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.intervals import Interval, bootstrap
from dynasor.observer import Observer
from dynasor.runtime import Runtime
from dynasor.suites import Suite


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain with its probes.

    Attributes:
        query: id.
        probes: in order.
        right: whether each probe's answer is right.
        tokens: of the whole chain.
        final_right: whether the answer at its end is.
        stop: place among the probes at which the rule would have stopped it; None for never.
    """

    query: str
    probes: tuple[Probe, ...]
    right: tuple[bool, ...]
    tokens: int
    final_right: bool
    stop: int | None

    def at(self, tokens: int, early: bool) -> tuple[bool, int]:
        """Whether it is right when cut after so many tokens, and what it has cost, probes included.

        Without early stop only the last probe is paid for, since the others would not have been.
        """
        asked = [n for n, probe in enumerate(self.probes) if probe.chain_tokens <= tokens]
        if early and self.stop is not None and self.stop in asked:
            paid = self.probes[: self.stop + 1]
            return self.right[self.stop], paid[-1].chain_tokens + sum(p.tokens for p in paid)
        extra = sum(self.probes[n].tokens for n in asked) if early else 0
        if tokens >= self.tokens:
            return self.final_right, self.tokens + extra
        if not asked:
            return False, tokens + extra
        last = self.probes[asked[-1]]
        return self.right[asked[-1]], tokens + (extra or last.tokens)


@dataclass(frozen=True, slots=True)
class Point:
    """One place on the curves; accuracies are shares, tokens means a question.

    Attributes:
        limit: tokens after which chains were cut.
        accuracy, accuracy_interval, tokens: without early stop.
        early_accuracy, early_accuracy_interval, early_tokens: with it.
    """

    limit: int
    accuracy: float
    accuracy_interval: Interval
    tokens: float
    early_accuracy: float
    early_accuracy_interval: Interval
    early_tokens: float


async def run_chains(
    config: Config,
    suite: Suite,
    engine: Engine,
    rule: StopRule,
    observer: Observer | None = None,
) -> list[Chain]:
    """Run one chain a question to its end; questions without a right answer are left out.

    Raises:
        EngineError: if the engine dies.
    """
    with AnswerEquivalence() as equivalence:
        programs: dict[str, DynasorCot] = {}
        for number, query in enumerate(suite.queries):
            program = make_program(config, suite, query, number, equivalence)
            assert isinstance(program, DynasorCot), "the configuration names dynasor-cot"
            if query.gold is not None:
                programs[query.id] = program
        from certaindex.rules.never import Never

        runtime = Runtime(engine, PerQuery(Never(), 1), observer=observer)
        outcomes = {}
        async for outcome in runtime.run(programs.values(), admission=config.allocator.admission):
            outcomes[outcome.query] = outcome
        golds = {query.id: query.gold for query in suite.queries}

        def judge(name: str) -> Chain:
            return _chain(
                programs[name],
                golds[name] or "",
                outcomes[name].answer.value,
                outcomes[name].bill.output,
                rule,
                equivalence,
            )

        return [judge(name) for name in programs]


def _chain(
    program: DynasorCot,
    gold: str,
    final: str | None,
    output: int,
    rule: StopRule,
    equivalence: AnswerEquivalence,
) -> Chain:
    probes = program.probes
    known: Mapping[str | None, bool] = {
        answer: answer is not None and equivalence.same(gold, answer)
        for answer in {final, *(probe.answer for probe in probes)}
    }
    return Chain(
        query=program.id,
        probes=probes,
        right=tuple(known[probe.answer] for probe in probes),
        tokens=output - sum(probe.tokens for probe in probes),
        final_right=known[final],
        stop=stop_of(probes, rule, AnswerGroups(equivalence)),
    )


def stop_of(probes: Sequence[Probe], rule: StopRule, groups: AnswerGroups) -> int | None:
    """Place of the probe after which a rule would have stopped the chain; None for never."""
    votes = Votes(max_samples=max(1, len(probes)))
    for place, probe in enumerate(probes):
        votes.add(groups.add(probe.answer), probe.tokens)
        if rule.decide(votes).stop is not None:
            return place
    return None


def curve(chains: Sequence[Chain], limits: Sequence[int]) -> list[Point]:
    """Both curves at these limits, with 95% bootstrap intervals over questions."""
    points = []
    for limit in limits:
        plain = np.array([chain.at(limit, early=False) for chain in chains], dtype=float)
        early = np.array([chain.at(limit, early=True) for chain in chains], dtype=float)
        points.append(
            Point(
                limit,
                float(plain[:, 0].mean()),
                bootstrap(plain[:, 0]),
                float(plain[:, 1].mean()),
                float(early[:, 0].mean()),
                bootstrap(early[:, 0]),
                float(early[:, 1].mean()),
            )
        )
    return points
