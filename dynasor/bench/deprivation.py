"""Token deprivation: how often a chain is right that is cut after t tokens and asked for its answer.

Each question gets one chain, probed every so many tokens to its end (`algorithms/dynasor_cot.py`). From
that one run follow both curves: without early stop a chain answers at t with its last probe, or
with its own answer where it has ended; with early stop it answers when the rule says so, if that is
before t, and spends no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from algorithms.dynasor_cot import DynasorCot, Probe
from certaindex.equivalence import AnswerEquivalence, AnswerGroups
from certaindex.rules.never import Never
from certaindex.stopping import StopRule
from certaindex.votes import Votes
from dynasor.allocator import PerQuery
from dynasor.bench.chain_folder import Chain, ChainFolder
from dynasor.bench.offline import make_program
from dynasor.config import Config
from dynasor.engines.base import Engine
from dynasor.intervals import Interval, bootstrap
from dynasor.observer import Observer
from dynasor.outcome import Outcome
from dynasor.runtime import Runtime
from dynasor.suites import Suite


@dataclass(frozen=True, slots=True)
class Cut:
    """A chain, and the place among its probes at which a rule would have stopped it; None for never."""

    chain: Chain
    stop: int | None

    def at(self, tokens: float, early: bool) -> tuple[bool, int]:
        """Whether it is right when cut after so many tokens, and what it has cost, probes included.

        Without early stop only the last probe is paid for, since the others would not have been.
        """
        chain = self.chain
        asked = [n for n, probe in enumerate(chain.probes) if probe.chain_tokens <= tokens]
        if early and self.stop is not None and self.stop in asked:
            paid = chain.probes[: self.stop + 1]
            return chain.right[self.stop], paid[-1].chain_tokens + sum(p.tokens for p in paid)
        extra = sum(chain.probes[n].tokens for n in asked) if early else 0
        if tokens >= chain.tokens:
            return chain.final_right, chain.tokens + extra
        if not asked:
            return False, int(tokens) + extra
        last = chain.probes[asked[-1]]
        return chain.right[asked[-1]], int(tokens) + (extra or last.tokens)


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


@dataclass(frozen=True, slots=True)
class Saving:
    """Chains that a rule ends against the same chains to their ends; 95% bootstrap intervals.

    Attributes:
        stopped: chains that the rule ended.
        accuracy_change, accuracy_change_interval: points.
        tokens_ratio, tokens_ratio_interval: tokens with the rule, probes included, of those without.
        probe_share: tokens of probes, of all tokens with the rule.
        cached_share: of the probes' prompt tokens (all that was written before them), those that the
            engine had in its cache; None where it does not tell.
    """

    stopped: int
    accuracy_change: float
    accuracy_change_interval: Interval
    tokens_ratio: float
    tokens_ratio_interval: Interval
    probe_share: float
    cached_share: float | None


async def run_chains(
    config: Config,
    suite: Suite,
    engine: Engine,
    folder: ChainFolder,
    observer: Observer | None = None,
) -> list[Chain]:
    """Run one chain a question to its end, but for those in the folder, which keeps each.

    Questions without a right answer are left out, and so are chains of which the engine failed a part.

    Raises:
        EngineError: if the engine dies.
        RunError: if the folder cannot be written.
    """
    golds = {query.id: query.gold for query in suite.queries if query.gold is not None}
    with AnswerEquivalence() as equivalence:
        programs: dict[str, DynasorCot] = {}
        for number, query in enumerate(suite.queries):
            if query.id not in golds or query.id in folder.chains:
                continue
            program = make_program(config, suite, query, number, equivalence)
            assert isinstance(program, DynasorCot), "the configuration names dynasor-cot"
            programs[query.id] = program
        runtime = Runtime(engine, PerQuery(Never(), 1), observer=observer)
        async for outcome in runtime.run(programs.values(), admission=config.allocator.admission):
            if not outcome.failed:
                query_id = outcome.query
                chain = await asyncio.to_thread(
                    _judged, programs[query_id], outcome, golds[query_id], equivalence
                )
                folder.write(chain)
    return [folder.chains[name] for name in golds if name in folder.chains]


def _judged(
    program: DynasorCot, outcome: Outcome, gold: str, equivalence: AnswerEquivalence
) -> Chain:
    probes, final = program.probes, outcome.answer.value
    known: Mapping[str | None, bool] = {
        answer: answer is not None and equivalence.same(gold, answer)
        for answer in {final, *(probe.answer for probe in probes)}
    }
    return Chain(
        query=program.id,
        probes=probes,
        right=tuple(known[probe.answer] for probe in probes),
        tokens=outcome.bill.output - program.probe_tokens,
        final_right=known[final],
    )


def cut_by(rule: StopRule, chains: Sequence[Chain]) -> list[Cut]:
    """Where a rule would have stopped each chain."""
    with AnswerEquivalence() as equivalence:
        return [
            Cut(chain, stop_of(chain.probes, rule, AnswerGroups(equivalence))) for chain in chains
        ]


def stop_of(probes: Sequence[Probe], rule: StopRule, groups: AnswerGroups) -> int | None:
    """Place of the probe after which a rule would have stopped the chain; None for never."""
    votes = Votes(max_samples=max(1, len(probes)))
    for place, probe in enumerate(probes):
        votes.add(groups.add(probe.answer), probe.tokens)
        if rule.decide(votes).stop is not None:
            return place
    return None


def curve(cuts: Sequence[Cut], limits: Sequence[int]) -> list[Point]:
    """Both curves at these limits, with 95% bootstrap intervals over questions."""
    points = []
    for limit in limits:
        plain = np.array([cut.at(limit, early=False) for cut in cuts], dtype=float)
        early = np.array([cut.at(limit, early=True) for cut in cuts], dtype=float)
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


def saving_of(cuts: Sequence[Cut]) -> Saving:
    """What a rule saves on whole chains, and what that costs in right answers."""
    early = np.array([cut.at(np.inf, early=True) for cut in cuts], dtype=float)
    right = np.array([cut.chain.final_right for cut in cuts], dtype=float)
    tokens = np.array([cut.chain.tokens for cut in cuts], dtype=float)
    made = [
        probe
        for cut in cuts
        for probe in cut.chain.probes[: None if cut.stop is None else cut.stop + 1]
    ]
    prompts = sum(probe.prompt_tokens for probe in made)
    change = 100 * (early[:, 0] - right)
    return Saving(
        stopped=sum(cut.stop is not None for cut in cuts),
        accuracy_change=float(change.mean()),
        accuracy_change_interval=bootstrap(change),
        tokens_ratio=float(early[:, 1].sum() / tokens.sum()),
        tokens_ratio_interval=bootstrap(early[:, 1], tokens),
        probe_share=sum(probe.tokens for probe in made) / float(early[:, 1].sum()),
        cached_share=sum(probe.cached_tokens for probe in made) / prompts if prompts else None,
    )
