"""The systems that the online benchmark compares: how a query stops, and who is served first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from certaindex.evidence import Evidence
from dynasor.errors import ConfigError

Hinting = Literal["none", "rank", "forecast"]
VANILLA = "vanilla"
OURS = "ours"
BY_EVIDENCE = "evidence"
ONE_SIDED = "adaptive-consistency:0.95"
"""Stops only the certain; the published rule with the fewest tokens at its published setting."""


@dataclass(frozen=True, slots=True)
class OnlineSystem:
    """One way to serve reasoning queries.

    Attributes:
        name: in tables, pictures and for `--system`.
        rule: stop rule, or `full` for all samples of the budget.
        wave: samples of a query in flight; `all` of them, or by `forecast` (see
            `dynasor.forecast_wave`).
        policy: `[scheduler] policy`; `vllm` is vLLM's own order of arrival.
        hints: what the scheduler is told of a query. `rank`: how long its samples will be, guessed
            from the prompt's length; `forecast`: the tokens that are still expected, from its
            votes.
        meaning: one line for the report.
        weighs: whether votes count by the evidence of their likelihood.
        when_due: whether it knows when answers are due, and then gives the best so far.
        cuts: whether samples that have become improbable are cut.
        fills: whether queries get more samples than they will probably need while the engine has
            room.
    """

    name: str
    rule: str
    wave: int | Literal["all", "forecast"]
    policy: str
    hints: Hinting
    meaning: str
    weighs: bool = False
    when_due: bool = False
    cuts: bool = False
    fills: bool = False

    def stop_rule(self, samples: int) -> str:
        """Text of its stop rule for a full budget of so many samples."""
        return f"fixed:{samples}" if self.rule == "full" else self.rule


def all_systems(rule: str, wave: int, *, evidence: Evidence | None) -> tuple[OnlineSystem, ...]:
    """Vanilla, the ablation (each line changes one thing of the one before), ours, and rivals.

    The rivals differ from ours in the order only: they stop as ours does.

    Args:
        rule: the two-sided stop rule.
        wave: samples in flight of those systems that stop early and do not foresee it.
        evidence: what likelihoods say of this model, None where that is not known; by it ours weighs
            its votes, stops by the lead in evidence, and cuts samples where that pays. What is the
            last line of the ablation is ours; `+due` and `+fill` add to it.
    """
    one, two = ONE_SIDED, rule
    weighs, cuts = evidence is not None, evidence is not None and evidence.cut_below > 0
    last = BY_EVIDENCE if weighs else rule
    meaning = "cuts the improbable" if cuts else "wave by forecast"
    ours = OnlineSystem(
        OURS, last, "forecast", "default", "forecast", meaning, weighs=weighs, cuts=cuts
    )
    weighed = OnlineSystem(
        "+evidence", BY_EVIDENCE, wave, "gang-srpt", "forecast", "weighs votes by likelihood", True
    )
    waved = replace(ours, name="+wave", meaning="wave by forecast", cuts=False)
    return (
        OnlineSystem(VANILLA, "full", "all", "vllm", "none", "all samples at once, vLLM's order"),
        OnlineSystem("+certaindex", one, wave, "vllm", "none", "stops once certain"),
        OnlineSystem("+gang", one, wave, "gang-fcfs", "none", "whole queries in order of arrival"),
        OnlineSystem("+rank", one, wave, "sjf-rank", "rank", "shortest first, by the prompt"),
        OnlineSystem("+srpt", one, wave, "gang-srpt", "forecast", "least expected work first"),
        OnlineSystem(
            "+two-sided", two, wave, "gang-srpt", "forecast", "stops also what is in vain"
        ),
        *([weighed] if weighs else []),
        *([waved] if cuts else []),
        ours,
        replace(ours, name="+due", when_due=True, meaning="answers when due, with the best so far"),
        replace(ours, name="+fill", fills=True, meaning="more samples while there is room"),
        replace(
            ours, name="stop-only", policy="vllm", hints="none", meaning="ours in vLLM's own order"
        ),
        replace(
            ours,
            name="least-attained",
            policy="least-attained",
            hints="none",
            meaning="ours in that order",
        ),
        replace(
            ours,
            name="priority",
            policy="vllm-priority",
            hints="none",
            meaning="ours by vLLM's priorities",
        ),
    )


def choose_systems(known: Sequence[OnlineSystem], names: Sequence[str]) -> list[OnlineSystem]:
    """The systems of these names, in the order of `known`; all of them for `all`.

    Raises:
        ConfigError: if a name is not known.
    """
    by_name = {system.name: system for system in known}
    for name in names:
        if name not in by_name and name != "all":
            raise ConfigError(f"--system {name}: there are all, {', '.join(by_name)}")
    return [system for system in known if "all" in names or system.name in names]
