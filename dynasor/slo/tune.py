"""From what the search tried to the plan that keeps every promise as cheaply as possible.

The loss: settings are certified on the calibration part of the queries (`dynasor.slo.guarantee`), all at
once, so the cheapest among them may be taken. Latency and tokens: plans of certified settings are
simulated anew, with other arrivals and other questions than in the search, cheapest first, until one
keeps all promises. What it does is then looked at on the queries that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import NamedTuple

from dynasor.slo.guarantee import Guarantee, Tested, certify
from dynasor.slo.outcomes import Setting
from dynasor.slo.prediction import Prediction, Problem, Shortfall
from dynasor.slo.refusal import SloRefusedError, refusal, words
from dynasor.slo.search import Tried
from dynasor.slo.space import Plan, Platform
from dynasor.slo.tables import Places, Split

REPEATS = (1, 2, 3, 4, 5)
"""Runs of the simulator from which the prediction of a plan is; the search has run 0."""
MOST_TRIED = 80
"""Plans that are simulated to find the cheapest that keeps its promises."""
NOT_REACHED = "not reached"
"""Fate of a setting that stands in a sequence of tests behind one that failed."""
_PLATFORMS = 4
_MOST_ASSIGNMENTS = 2000


class Candidate(NamedTuple):
    """A plan of certified settings.

    Attributes:
        plan: it.
        tokens: of a query, on the calibration part.
        seen_kept: whether the search has seen it keep latency and tokens.
    """

    plan: Plan
    tokens: float
    seen_kept: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another setting of a class, with all else as chosen.

    Attributes:
        group: the class.
        tested: the setting, and what the calibration says of it.
        passes: whether it would be certified if it were tested alone.
        latency: 90th percentile, seconds.
        short: which promises of latency and tokens would be broken.
    """

    group: str
    tested: Tested
    passes: bool
    latency: float
    short: tuple[Shortfall, ...]

    @property
    def fate(self) -> str:
        """Why it was not chosen, as far as that is known."""
        failed = NOT_REACHED if self.passes else "not certified"
        sure = "certified" if self.tested.certified else failed
        broken = [
            f"{each.part.removeprefix('latency.')} {each.predicted:,.3g} {each.unit}"
            for each in self.short
        ]
        return ", but ".join([sure, *broken[:1]])


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result.

    Attributes:
        plan: the chosen one.
        guarantees: class -> what was certified.
        expected: on the calibration part of the queries, over `REPEATS` runs.
        held: the same on the queries that were held out.
        neighbours: what other settings would cost.
        tried: all of the search.
    """

    plan: Plan
    guarantees: Mapping[str, Guarantee]
    expected: Prediction
    held: Prediction
    neighbours: tuple[Neighbour, ...]
    tried: tuple[Tried, ...]

    def chosen(self, group: str) -> Tested:
        """The setting of a class, as it was certified."""
        setting = self.plan.settings[group]
        return next(each for each in self.guarantees[group].tested if each.setting == setting)


def tune(
    problem: Problem,
    tried: Sequence[Tried],
    progress: Callable[[str], None] | None = None,
) -> Tuned:
    """Certify, choose, and look at the choice.

    Raises:
        SloRefusedError: if no certified setting keeps the promises of latency and tokens.
    """
    guarantees = {
        group: certify(
            problem.tables[group], problem.splits[group], to_test(problem, group, tried), promise
        )
        for group, promise in problem.promises.items()
    }
    failed: list[tuple[Plan, list[Shortfall]]] = []

    def keeps(plan: Plan) -> Prediction | None:
        """What is expected of a plan, if it keeps all promises."""
        if progress is not None:
            progress(f"plan {len(failed) + 1}: {words(plan)}")
        short = problem.shortfalls(problem.predict(plan, _calibrated, repeats=REPEATS[:1]))
        if not short:
            expected = problem.predict(plan, _calibrated, repeats=REPEATS)
            short = problem.shortfalls(expected)
            if not short:
                return expected
        failed.append((plan, short))
        return None

    replicas = sorted({each.plan.platform.replicas for each in tried})
    for number in replicas:
        found = candidates(problem, guarantees, tried, number)
        chosen = cheapest(found, keeps, MOST_TRIED // len(replicas))
        if chosen is not None:
            return _result(problem, *chosen, guarantees, tried)
    raise SloRefusedError(refusal(problem, guarantees, failed, tried))


def to_test(problem: Problem, group: str, tried: Sequence[Tried]) -> list[Setting]:
    """Settings of a class that the search part of its queries speaks for, and the full budget."""
    tables, best = problem.tables[group], {id(each) for each in worthwhile(tried)}
    searched = [
        setting
        for each in tried
        for setting in [each.plan.settings[group]]
        if id(each) in best or tables.is_full(setting)
    ]
    split, promise = problem.splits[group], problem.promises[group]
    return searched + tables.thrifty(searched, split.search, promise)


def cheapest(
    found: Sequence[Candidate], keeps: Callable[[Plan], Prediction | None], most: int
) -> tuple[Plan, Prediction] | None:
    """The cheapest candidate that keeps all promises, as far as is found with so many looks.

    First those that the search has seen keep them, until one does; then all that are cheaper.
    """
    looks = max(1, most // 2)
    best: tuple[Plan, Prediction] | None = None
    limit = inf
    for each in sorted(found, key=lambda each: (not each.seen_kept, each.tokens))[:looks]:
        if (expected := keeps(each.plan)) is not None:
            best, limit = (each.plan, expected), each.tokens
            break
    if best is None:
        return None
    cheaper = [each for each in found if each.tokens < limit and not each.seen_kept]
    for each in sorted(cheaper, key=lambda each: each.tokens)[:looks]:
        if (expected := keeps(each.plan)) is not None:
            return each.plan, expected
    return best


def _result(
    problem: Problem,
    plan: Plan,
    expected: Prediction,
    guarantees: Mapping[str, Guarantee],
    tried: Sequence[Tried],
) -> Tuned:
    return Tuned(
        plan=plan,
        guarantees=guarantees,
        expected=expected,
        held=problem.predict(plan, lambda split: split.held, repeats=REPEATS[:2]),
        neighbours=tuple(_neighbours(problem, plan, guarantees)),
        tried=tuple(tried),
    )


def _neighbours(
    problem: Problem, plan: Plan, guarantees: Mapping[str, Guarantee]
) -> Iterator[Neighbour]:
    """The tested settings next to the chosen one by tokens, on both sides, and the full budget."""
    for group, found in guarantees.items():
        ladder = sorted(found.tested, key=lambda each: each.figures.tokens)
        place = [each.setting for each in ladder].index(plan.settings[group])
        around = [
            *ladder[max(0, place - 2) : place],
            *ladder[place + 1 : place + 3],
            found.tested[0],
        ]
        for tested in dict.fromkeys(around):
            if tested.setting == plan.settings[group]:
                continue
            other = plan._replace(settings={**plan.settings, group: tested.setting})
            expected = problem.predict(other, _calibrated, repeats=REPEATS)
            seconds = expected[group].latency.percentile(90)
            passes = tested.figures.bound <= (problem.promises[group].epsilon or 0.0)
            yield Neighbour(group, tested, passes, seconds, tuple(problem.shortfalls(expected)))


def _calibrated(split: Split) -> Places:
    return split.calibrate


def worthwhile(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other one beats in tokens, latency and loss at once, at its number of replicas."""

    def figures(each: Tried) -> tuple[float, ...]:
        return each.tokens, each.latency, each.loss, float(each.plan.platform.replicas)

    kept = []
    for each in tried:
        mine = figures(each)
        beaten = any(
            all(a <= b for a, b in zip(figures(other), mine, strict=True))
            and figures(other) != mine
            for other in tried
        )
        if not beaten:
            kept.append(each)
    return kept


def candidates(
    problem: Problem, guarantees: Mapping[str, Guarantee], tried: Sequence[Tried], replicas: int
) -> list[Candidate]:
    """Certified settings on the platforms where the search saw them, and on the best of all."""
    each_class = max(2, int(_MOST_ASSIGNMENTS ** (1 / len(guarantees))))
    by_class = {
        group: sorted(found.certified, key=lambda each: each.figures.tokens)[:each_class]
        for group, found in guarantees.items()
    }
    kept = [each.plan for each in tried if each.kept and each.plan.platform.replicas <= replicas]
    found = []
    for choice in product(*by_class.values()):
        chosen = dict(zip(by_class, choice, strict=True))
        settings = {group: each.setting for group, each in chosen.items()}
        tokens = problem.mean({group: each.figures.tokens for group, each in chosen.items()})
        own = [plan.platform for plan in kept if plan.settings == settings]
        for platform in dict.fromkeys([*own, *_best_platforms(tried)]):
            plan = Plan(platform._replace(replicas=replicas), settings)
            found.append(Candidate(plan, tokens, platform in own))
    return found


def _best_platforms(tried: Sequence[Tried]) -> list[Platform]:
    """Platforms by the least latency for the tokens that they were seen with."""
    best: dict[Platform, float] = {}
    for each in tried:
        cost = each.latency * each.tokens
        platform = each.plan.platform._replace(replicas=1)
        best[platform] = min(best.get(platform, cost), cost)
    return sorted(best, key=best.__getitem__)[:_PLATFORMS]
