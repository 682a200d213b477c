"""What the scheduler is told of each query's work, learnt from the queries before it."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from certaindex.stopping import parse_rule
from dynasor.config import Config
from dynasor.programs import probing_of
from dynasor.scheduling.forecast import Forecast
from dynasor.scheduling.further_samples import HashableRule
from serving.reasoning_plan import Plan

KEPT = 64
"""Stop rules whose forecasts are kept; clients may bring any rule."""
UNSEEN = 500.0
"""Output tokens of a sample, before any has ended."""


class Forecasts:
    """One forecast for each algorithm and rule: what differs in either differs in its work.

    Rules of the configuration are few and soon all known; those that clients bring could keep the
    server busy with playing them, so they are not played.
    """

    def __init__(self) -> None:
        self._shared: OrderedDict[str, Forecast] = OrderedDict()

    def of(self, plan: Plan, config: Config) -> Forecast:
        """The forecast of a query, with its weight; it learns from the query."""
        rule = f"fixed:{plan.samples}" if plan.plain else plan.rule
        key = f"{plan.algorithm} {rule}"  # plain requests and samples differ in length
        shared = self._shared.get(key)
        if shared is None:
            # Only where votes are samples can more of them be played.
            shared = self._shared[key] = Forecast(
                cast(HashableRule, parse_rule(rule)),
                tokens=_tokens_a_vote(plan),
                play=_is_ours(plan, config) and plan.algorithm == "self-consistency",
            )
            if len(self._shared) > KEPT:
                self._shared.popitem(last=False)
        self._shared.move_to_end(key)
        return shared.weighted(plan.weight * 2.0**plan.priority)


def _is_ours(plan: Plan, config: Config) -> bool:
    """Whether the rule is the configuration's and not one that a client has brought."""
    ours = {config.allocator.rule, *(effort.rule for effort in config.server.effort.values())}
    return plan.rule in ours or plan.admission is not None


def _tokens_a_vote(plan: Plan) -> float:
    """Output tokens that one finished answer takes, before any has ended."""
    if plan.algorithm != "dynasor-cot":
        return UNSEEN
    probing = probing_of(plan.config)
    return probing.interval + probing.tokens
