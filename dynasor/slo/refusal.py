"""Why no setting keeps the promises: which part of them, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynasor.errors import ConfigError
from dynasor.slo.guarantee import Guarantee
from dynasor.slo.outcomes import Setting
from dynasor.slo.prediction import Problem, Shortfall
from dynasor.slo.promise import QueryClass
from dynasor.slo.search import Tried
from dynasor.slo.space import Plan


class SloRefusedError(ConfigError):
    """No setting keeps the promises of `[slo]`; says which part and by how much."""


def refusal(
    problem: Problem,
    guarantees: Mapping[str, Guarantee],
    failed: Sequence[tuple[Plan, Sequence[Shortfall]]],
    tried: Sequence[Tried],
) -> str:
    """What to tell.

    Args:
        problem: with the promises.
        guarantees: what was certified of each class.
        failed: plans of certified settings, and where each falls short; at least one.
        tried: what the search saw, settings that are not certified too.
    """
    lines = ["no setting keeps all that [slo] promises", *_parts(failed)]
    for group, promise in problem.promises.items():
        if not guarantees[group].enough:
            lines.append(too_few(group, promise, guarantees[group]))
    lines += _what_would_do(problem, guarantees, tried)
    return "\n  ".join(lines)


def _parts(failed: Sequence[tuple[Plan, Sequence[Shortfall]]]) -> list[str]:
    """The parts that no plan keeps, each at its best; else the plan that comes nearest to all."""
    always = set.intersection(*({(each.group, each.part) for each in short} for _, short in failed))
    lines = []
    for key in sorted(always):
        rows = [(each, plan) for plan, short in failed for each in short if each[:2] == key]
        best, plan = min(rows, key=lambda row: row[0].predicted)
        lines.append(f"{best} ({words(plan)})")
    if lines:
        return lines
    plan, short = min(failed, key=lambda row: max(each.excess for each in row[1]))
    together = "each part can be kept, but not all at once; nearest comes " + words(plan)
    return [together, *(str(each).replace(" at best", "") for each in short)]


def _what_would_do(
    problem: Problem, guarantees: Mapping[str, Guarantee], tried: Sequence[Tried]
) -> list[str]:
    """A setting that keeps latency and tokens, and by how much its loss is too large."""
    kept = [each for each in tried if each.kept]
    if not kept:
        return ["nothing that the search tried keeps latency and tokens, whatever is lost: lower "
                "slo.rate, give more --replicas, or promise less"]  # fmt: skip
    best = min(kept, key=lambda each: each.loss)
    lines = []
    for group, setting in best.plan.settings.items():
        figures = {each.setting: each.figures for each in guarantees[group].tested}.get(setting)
        epsilon = problem.promises[group].epsilon
        if figures is not None and epsilon is not None and figures.bound > epsilon:
            lines.append(
                f"{words_of(setting)} would keep latency and tokens, but its loss in class {group} "
                f"may be {100 * figures.bound:.2g} points, {100 * (figures.bound - epsilon):.2g} "
                f"above epsilon"
            )
    return lines


def too_few(group: str, promise: QueryClass, guarantee: Guarantee) -> str:
    """That there is no guarantee but for the full budget, and how many queries it would take."""
    assert promise.epsilon is not None, "checked before the search"
    count, needed = guarantee.queries, guarantee.needed
    if promise.guarantee == "mean":
        bound = f"1 / {count + 1} = {100 / (count + 1):.2g} points"
        sure = "in the mean"
    else:
        least = 1 - promise.risk ** (1 / count)
        bound = f"1 - {promise.risk:g}^(1/{count}) = {100 * least:.2g} points"
        sure = f"at {100 * (1 - promise.risk):g}% confidence"
    return (
        f"no guarantee in class {group} but for the full budget: with {count} queries to calibrate on "
        f"and none lost, the bound is {bound}; {100 * promise.epsilon:g} points {sure} take {needed}, "
        f"so record about {2 * needed} queries"
    )


def words(plan: Plan) -> str:
    """A plan in a line."""
    platform = plan.platform
    settings = [
        f"{group}: {words_of(setting)}" if len(plan.settings) > 1 else words_of(setting)
        for group, setting in plan.settings.items()
    ]
    shared = [
        f"policy {platform.policy}",
        f"{platform.places} places",
        *(["ranked"] if platform.ranked else []),
        f"{platform.replicas} replica" + "s" * (platform.replicas > 1),
    ]
    return ", ".join([*settings, *shared])


def words_of(setting: Setting) -> str:
    """A setting in words."""
    return f"{setting.rule} of {setting.samples} samples, wave {setting.wave}"
