"""All stop rules by name, and the text form that a command line or a config file gives them.

A rule's text is its name and its parameters, `NAME[:VALUE][,PARAMETER=VALUE]...`: a value without a
name is the rule's first parameter; names of parameters may be shortened (`min` for `min_samples`).
`RULE+hopeless:0.25` makes any rule two-sided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from certaindex.rules.adaptive_consistency import AdaptiveConsistency
from certaindex.rules.bayes_factor import BayesFactor
from certaindex.rules.consensus import Consensus
from certaindex.rules.eprocess import EProcess
from certaindex.rules.esc import EarlyStoppingConsistency
from certaindex.rules.evidence import EvidenceLead
from certaindex.rules.fixed import Fixed
from certaindex.rules.hopeless import OrHopeless
from certaindex.rules.leader_change import LeaderChange
from certaindex.rules.learned import Learned
from certaindex.rules.never import Never
from certaindex.rules.reward import RewardThreshold
from certaindex.rules.sprt import MixtureSprt, Sprt
from certaindex.rules.stable import Stable
from certaindex.rules.threshold import CertaindexThreshold
from certaindex.rules.verdict import StopReason, StopRule, Verdict

__all__ = ["RuleInfo", "StopReason", "StopRule", "Verdict", "describe_rules", "parse_rule"]


class RuleInfo(NamedTuple):
    """One row of the list of rules.

    Attributes:
        name: what a rule's text begins with.
        syntax: name and parameters with their defaults.
        meaning: one line.
        paper: where it comes from.
        defaults: parameter -> default value.
    """

    name: str
    syntax: str
    meaning: str
    paper: str
    defaults: dict[str, float]


class _Entry(NamedTuple):
    build: Callable[..., StopRule]
    meaning: str
    paper: str


_RULES: dict[str, _Entry] = {
    "default": _Entry(
        Learned,
        "stop when experience with recorded samples says that more are not worth their tokens",
        "Dynasor; docs/results/stop_rules.md",
    ),
    "fixed": _Entry(Fixed, "stop after so many samples", "Wang et al., Self-Consistency, 2022"),
    "certaindex": _Entry(
        CertaindexThreshold, "stop when the answers agree enough", "Fu et al., Dynasor, 2024"
    ),
    "adaptive-consistency": _Entry(
        AdaptiveConsistency,
        "stop when the leader is probably more probable than the runner-up",
        "Aggarwal et al., Adaptive-Consistency, 2023",
    ),
    "esc": _Entry(
        EarlyStoppingConsistency,
        "stop when all answers of a window agree",
        "Li et al., Early-stopping Self-Consistency, 2024",
    ),
    "sprt": _Entry(Sprt, "Wald's test between the two best answers", "Lee et al., ConSol, 2025"),
    "msprt": _Entry(
        MixtureSprt,
        "the same test against a mixture of alternatives",
        "Lee et al., ConSol, 2025",
    ),
    "bayes-factor": _Entry(
        BayesFactor,
        "stop when a Dirichlet posterior says that the leader is the most probable answer",
        "Komiyama et al., Best-of-infinity, 2025",
    ),
    "eprocess": _Entry(
        EProcess,
        "stop with a certificate, valid at any time, that the leader is the most probable answer",
        "Jain et al., PAC Mode Estimation, 2022",
    ),
    "leader-change": _Entry(
        LeaderChange,
        "stop when the leader will hardly change within the remaining budget",
        "Dynasor; Beta-binomial",
    ),
    "stable": _Entry(
        Stable,
        "stop when the last answers (of samples, or of probes) all agree",
        "Fu et al., Dynasor-CoT, 2025",
    ),
    "consensus": _Entry(
        Consensus,
        "stop when the leader has nearly all of the votes' weight",
        "Fu et al., DeepConf, 2025",
    ),
    "reward": _Entry(
        RewardThreshold,
        "stop when answers agree and their rewards are high",
        "Fu et al., Dynasor, 2024",
    ),
    "never": _Entry(Never, "spend the full budget", "to compare with"),
    "evidence": _Entry(
        EvidenceLead,
        "stop when the leader is so many nats of evidence ahead, or half-way when it is not",
        "Dynasor; certaindex.evidence",
    ),
}


def parse_rule(text: str) -> StopRule:
    """Build the rule that `text` describes, for example `certaindex:0.9,min=3,every=2`.

    Raises:
        ValueError: naming the rule, the parameter, the value and what is allowed.
    """
    certain, plus, hopeless = text.partition("+")
    rule = _build(certain.strip())
    if not plus:
        return rule
    name, _, arguments = hopeless.strip().partition(":")
    if name != "hopeless":
        raise ValueError(f"rule {text}: only 'hopeless' may follow '+', not '{name}'")
    two_sided: Callable[..., StopRule] = OrHopeless
    return two_sided(rule, **_parameters("hopeless", arguments, _defaults(OrHopeless)))


def describe_rules() -> list[RuleInfo]:
    """Every rule with its syntax, meaning, paper and default parameters."""
    rows = []
    for name, entry in _RULES.items():
        defaults = _defaults(entry.build)
        syntax = ",".join(f"{key}={value:g}" for key, value in defaults.items())
        rows.append(
            RuleInfo(name, f"{name}:{syntax}".rstrip(":"), entry.meaning, entry.paper, defaults)
        )
    share = _defaults(OrHopeless)
    syntax = "RULE+hopeless:" + ",".join(f"{key}={value:g}" for key, value in share.items())
    meaning = "any rule, and stop also where no answer leads"
    return [*rows, RuleInfo("hopeless", syntax, meaning, "Dynasor", share)]


def _build(text: str) -> StopRule:
    name, _, arguments = text.partition(":")
    entry = _RULES.get(name)
    if entry is None:
        raise ValueError(f"rule '{name}' is unknown; known rules: {', '.join(_RULES)}")
    return entry.build(**_parameters(name, arguments, _defaults(entry.build)))


def _parameters(rule: str, text: str, defaults: dict[str, float]) -> dict[str, float]:
    """`0.9,min=3` as {"threshold": 0.9, "min_samples": 3}, typed like the defaults."""
    given: dict[str, float] = {}
    for position, part in enumerate(filter(None, text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if position or not defaults:
                allowed = ", ".join(f"{name}=VALUE" for name in defaults) or "no parameters"
                raise ValueError(f"rule {rule}: '{part}' is not understood; allowed: {allowed}")
            key, value = next(iter(defaults)), key
        matches = [name for name in defaults if name.startswith(key)] if key else []
        if len(matches) != 1:
            allowed = ", ".join(defaults) or "none"
            raise ValueError(f"rule {rule}: unknown parameter '{key}'; allowed: {allowed}")
        name = matches[0]
        if name in given:
            raise ValueError(f"rule {rule}: parameter '{name}' is given twice")
        given[name] = _number(rule, name, value, whole=isinstance(defaults[name], int))
    return given


def _number(rule: str, parameter: str, text: str, *, whole: bool) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"rule {rule}: {parameter} must be {kind}, not '{text}'") from None


def _defaults(build: Any) -> dict[str, float]:
    return {field.name: field.default for field in fields(build) if field.default is not MISSING}
