"""What was promised to the server's queries: which setting each gets, and whether the promises hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic

from algorithms.program import Program
from dynasor.config import Config
from dynasor.errors import ConfigError
from dynasor.runtime import Outcome
from dynasor.slo.calibration_set import CalibrationSet, ClassCalibration
from dynasor.slo.class_watch import ClassWatch, Status
from dynasor.slo.drift import Traits
from dynasor.slo.load_control import Pace
from dynasor.slo.promise import ClassSettings
from dynasor.slo.rungs import FULL, Rung
from serving.api_errors import ApiError
from serving.reasoning_plan import Plan


class Promises:
    """All classes of a server.

    Args:
        config: of the server; its `[slo]` says what is promised.
        calibration: what `dynasor tune` learned, or None.
        clock: seconds.
        random: picks the queries that are audited.

    Raises:
        ConfigError: if settings of a class contradict the calibration or the server's limits.
    """

    def __init__(
        self,
        config: Config,
        calibration: CalibrationSet | None,
        *,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self.calibration = calibration
        self.pace = Pace(clock)
        known = {} if calibration is None else calibration.classes
        self.classes: Mapping[str, ClassWatch] = {
            name: _class_watch(name, config, known.get(name), self.pace, random or Random())
            for name in config.slo.classes
        }

    @property
    def overloaded(self) -> bool:
        """Whether a class is served boldly or refused."""
        return any(watch.overloaded for watch in self.classes.values())

    @property
    def alarms(self) -> list[str]:
        """What is wrong, in words."""
        return [
            f"{name}: {alarm}; served with {watch.setting}"
            for name, watch in self.classes.items()
            for alarm in watch.alarms
        ]

    def admit(self, plan: Plan) -> Plan:
        """The plan with the setting of its class.

        Raises:
            ApiError: 429 if the promise to its class would not be kept, or its day's tokens are spent.
        """
        watch = self.classes.get(plan.promise or "")
        if watch is None:
            return plan
        admission = watch.admit()
        if (refusal := admission.refusal) is not None:
            raise ApiError(429, refusal.why, code=refusal.code, retry_after=refusal.wait)
        plan = replace(plan, admission=admission)
        rung = admission.setting
        if rung is None:
            return plan
        return plan.with_setting(rung.rule, rung.samples, rung.wave)

    def begun(self, plan: Plan) -> float:
        """A query begins; its expected work, tokens."""
        work = plan.admission.work if plan.admission else self.pace.expected(_kind(plan))
        self.pace.enter(work)
        return work

    def ended(
        self, plan: Plan, work: float, program: Program, outcome: Outcome | None, tokens: int
    ) -> None:
        """A query has ended after so many output tokens; no outcome: it was left, or lost its engine."""
        if plan.admission is not None:
            plan.admission.of.spend(tokens)
        ended = outcome is not None and outcome.reason != "failed"
        self.pace.leave(work, ended=ended)
        if outcome is None or not ended:
            return
        self.pace.learn(_kind(plan), outcome.bill.output)
        if plan.admission is not None:
            plan.admission.of.ended(plan.admission, outcome.seconds, _traits(program, outcome))

    def statuses(self) -> dict[str, Status]:
        """How each class does."""
        return {name: watch.status() for name, watch in self.classes.items()}


def load_calibration(config: Config) -> CalibrationSet | None:
    """The calibration that the configuration names.

    Raises:
        DataError: if it cannot be read.
    """
    path = config.slo.calibration
    return None if path is None else CalibrationSet.load(Path(path))


def _class_watch(
    name: str, config: Config, calibration: ClassCalibration | None, pace: Pace, random: Random
) -> ClassWatch:
    promised = config.slo.classes[name]
    full = Rung(FULL, config.algorithm.samples, config.allocator.wave)
    base = None
    if promised.settings != ClassSettings():
        base = Rung(
            promised.settings.rule or config.allocator.rule,
            promised.settings.samples or full.samples,
            promised.settings.wave or full.wave,
        )
    try:
        watch = ClassWatch(
            name,
            promised,
            base,
            full,
            calibration,
            config=config.slo.watch,
            audit=config.slo.audit,
            pace=pace,
            random=random,
        )
    except ValueError as error:
        raise ConfigError(f"slo.classes.{name}.settings: {error}") from None
    if watch.most_samples > config.server.max_samples:
        raise ConfigError(
            f"slo.classes.{name}: {watch.most_samples} samples are more than "
            f"server.max_samples = {config.server.max_samples}"
        )
    return watch


def _kind(plan: Plan) -> str:
    """Queries that cost about the same."""
    if plan.admission is not None and plan.admission.base:
        return f"class {plan.admission.of.name}"
    return f"{plan.algorithm} {plan.rule} {plan.samples}"


def _traits(program: Program, outcome: Outcome) -> Traits | None:
    """What is compared with the calibration; None of a query that did not end by its rule."""
    votes = program.votes()
    if outcome.reason not in ("certain", "hopeless", "complete") or outcome.failed or not votes.n:
        return None
    return Traits(
        certainty=outcome.certainty.value,
        agreement=votes.top_two()[0] / votes.n,
        samples=votes.n,
        sample_tokens=votes.total_tokens / votes.n,
    )
